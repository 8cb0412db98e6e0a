"""What happens to the interface that carries everything."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from flannel_core.lease import FAMILIES, Family

from ..hosts import Host
from ..network import UNDERLAY4, UNDERLAY6, LabError
from .scene import BACK_SECONDS, Case, Outcome, Scene, expect_none_lost, run_all

ROW = "eth0 down and up, its addresses, default routes and MTU"
OTHER_ADDRESS = {4: f"{UNDERLAY4[199]}/{UNDERLAY4.prefixlen}", 6: f"{UNDERLAY6[199]}/{UNDERLAY6.prefixlen}"}
"""Which no machine of a lab has."""


def address_of(host: Host, family: Family) -> str:
    """eth0's, with its prefix length, when nobody meddles."""
    return str(host.machine.ipv4 if family == 4 else host.machine.ipv6)


def put_back(address: str, family: Family) -> Iterable[str]:
    """An address and the default route, as whoever manages the network puts them back."""
    yield f"ip addr replace {address} dev eth0{'' if family == 4 else ' nodad'}"
    yield f"ip route replace default via {UNDERLAY4[1] if family == 4 else UNDERLAY6[1]}"


def _back_after(scene: Scene, take: Iterable[str], give: Iterable[str]) -> Outcome:
    """Something is away for ``scene.outage`` seconds; from its return on the time counts."""
    before = scene.settled_states()
    with scene.pinging() as pings:
        scene.ping_some(pings)
        run_all(scene.a, take)
        time.sleep(scene.outage)
        run_all(scene.a, give)
        seconds = scene.seconds_until(scene.is_settled, BACK_SECONDS)
        scene.ping_some(pings)
    scene.expect_states(before)
    return Outcome(seconds, pings.lost, pings.sent)


def _down_and_up(scene: Scene) -> Outcome:
    give = [command for family in FAMILIES for command in put_back(address_of(scene.a, family), family)]
    return _back_after(scene, ["ip link set eth0 down"], ["ip link set eth0 up", *give])


def _address_away(family: Family, scene: Scene) -> Outcome:
    address = address_of(scene.a, family)
    return _back_after(scene, [f"ip addr del {address} dev eth0"], put_back(address, family))


def _other_address(family: Family, scene: Scene) -> Outcome:
    """To another one and back to the first."""
    before, own, other = scene.settled_states(), address_of(scene.a, family), OTHER_ADDRESS[family]
    outcome = _worst(_readdressed(scene, family, own, other), _readdressed(scene, family, other, own))
    scene.expect_states(before)
    return outcome


def _readdressed(scene: Scene, family: Family, old: str, new: str) -> Outcome:
    """The subnet stays, and the peer hears of it."""
    a, held, public_ip = scene.a, scene.a.env.subnets, new.partition("/")[0]
    with scene.pinging() as pings:
        scene.ping_some(pings)
        run_all(a, [f"ip addr del {old} dev eth0", *put_back(new, family)])
        scene.lab.eventually(lambda: scene.is_settled() and public_ip in known_addresses(scene.b, a), BACK_SECONDS)
        scene.ping_some(pings)
    if a.env.subnets != held:
        raise LabError(f"{a.name} had {held} and now has {a.env.subnets}")
    return Outcome(pings.outage, pings.lost, pings.sent)


def known_addresses(host: Host, peer: Host) -> tuple[str, ...]:
    """Where ``host`` reaches ``peer``, as its agent says."""
    held = {str(subnet) for subnet in peer.env.subnets}
    return next((known.public_ips for known in host.status().peers if held & set(known.subnets)), ())


def _other_mtu(scene: Scene) -> Outcome:
    """To 1400 and back to 1500."""
    before, mtu = scene.settled_states(), scene.a.env.mtu
    outcome = _worst(_resized(scene, 1400, mtu - 100), _resized(scene, 1500, mtu))
    scene.expect_states(before)
    return outcome


def _resized(scene: Scene, outer: int, inner: int) -> Outcome:
    """subnet.env follows, and pods may send what it says."""
    a = scene.a
    with scene.pinging() as pings:
        scene.ping_some(pings)
        a.run(f"ip link set eth0 mtu {outer}")
        seconds = scene.seconds_until(lambda: a.env.mtu == inner and scene.is_settled(), BACK_SECONDS)
        scene.ping_some(pings)
    with a.pinging(scene.b, size=inner) as full:
        scene.ping_some(full)
    expect_none_lost(full)
    return Outcome(seconds, pings.lost, pings.sent)


def _worst(*outcomes: Outcome) -> Outcome:
    return Outcome(max(o.seconds for o in outcomes), sum(o.lost for o in outcomes), sum(o.sent for o in outcomes))


CASES = (
    Case(ROW, "eth0 down, up, addresses and default routes back", _down_and_up, lasts=True),
    *(Case(ROW, "address away and back", partial(_address_away, family), family, lasts=True) for family in FAMILIES),
    *(Case(ROW, "another address and the first again", partial(_other_address, family), family) for family in FAMILIES),
    Case(ROW, "MTU 1500 to 1400 and back", _other_mtu),
)
