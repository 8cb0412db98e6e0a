"""What an operator, a reboot of something else or a bug can take away from the kernel, as shell commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from flannel_core.lease import FAMILIES, Family

from ..hosts import Host
from .scene import Case, Outcome, Scene, device, mac, run_all, subnet, vtep

ROW = "route, neighbour, FDB entry, address, device, MAC, MTU, every table"
NEW_MAC = "02:00:5e:00:53:01"
"""A locally administered unicast address that no device has by itself."""

FLUSHED_ROUTES = "every route flushed"

Commands = Callable[[Host, Host, Family], Iterable[str]]


def _route(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip route del {subnet(peer, family)}"]


def _route_elsewhere(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip route replace {subnet(peer, family)} dev lo proto 76"]


def _neighbour(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip neigh del {vtep(peer, family)} dev {device(family)}"]


def _fdb(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"bridge fdb del {mac(peer, family)} dev {device(family)} self"]


def _address(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip addr del {vtep(host, family)}/{32 if family == 4 else 128} dev {device(family)}"]


def _device(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip link del {device(family)}"]


def _down(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip link set {device(family)} down"]


def _down_and_up(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip link set {device(family)} down", f"ip link set {device(family)} up"]


def _new_mac(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip link set {device(family)} address {NEW_MAC}"]


def _new_mtu(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip link set {device(family)} mtu 1280"]


def _flushed(host: Host, peer: Host, family: Family) -> Iterable[str]:
    yield f"ip -{family} route flush proto 76"
    yield f"ip -{family} neigh flush dev {device(family)} nud permanent"
    yield f"bridge fdb del {mac(peer, family)} dev {device(family)} self"
    yield f"ip -{family} addr flush dev {device(family)} scope global"


def _routes_flushed(host: Host, peer: Host, family: Family) -> Iterable[str]:
    """All of the table; what is not ours its makers put back, as they do."""
    routes = host.run(f"ip -{family} route show").splitlines()
    of_others = [route.split(" pref ")[0] for route in routes if " proto 76 " not in route]
    yield f"ip -{family} route flush table main"
    # What is on-link first: a gateway is reached through it.
    for route in sorted(of_others, key=lambda route: " via " in route):
        yield f"ip -{family} route append {route}"


ANYWHERE: dict[str, Commands] = {
    "route deleted": _route,
    "route led elsewhere": _route_elsewhere,
    FLUSHED_ROUTES: _routes_flushed,
}
OF_VXLAN: dict[str, Commands] = {
    "neighbour deleted": _neighbour,
    "FDB entry deleted": _fdb,
    "address deleted": _address,
    "device deleted": _device,
    "device down": _down,
    "device down and up": _down_and_up,
    "MAC changed": _new_mac,
    "MTU changed": _new_mtu,
    "every table flushed": _flushed,
}


def _cases(faults: dict[str, Commands], backends: tuple[str, ...]) -> Iterable[Case]:
    for name, commands in faults.items():
        for family in FAMILIES:
            yield Case(ROW, name, partial(_taken_away, commands, family), family, backends)


def _taken_away(commands: Commands, family: Family, scene: Scene) -> Outcome:
    return scene.repaired(lambda: run_all(scene.a, commands(scene.a, scene.b, family)))


CASES = (*_cases(ANYWHERE, ("vxlan", "host-gw")), *_cases(OF_VXLAN, ("vxlan",)))
