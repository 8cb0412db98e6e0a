"""What this host's kernel must be set to so that packets pass, what of it is not, and the command that cures it. Pure.

Nothing here is a reason not to run. Only what does harm on this very host is named: each requirement says when.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from .host import Host
from .lease import FAMILIES, Family, IPAddress
from .netconf import NetworkConfig
from .objects import Sysctl

FORWARDING: dict[Family, str] = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
BRIDGED: dict[Family, str] = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
"""Of the module br_netfilter: whether iptables and ip6tables see what passes from port to port of one bridge."""
NEIGHBOUR_LIMITS: dict[Family, str] = {4: "net/ipv4/neigh/default/gc_thresh", 6: "net/ipv6/neigh/default/gc_thresh"}
"""Followed by 1, 2, 3. Of the whole machine: network namespaces other than the first do not show them."""
CONTAINERS = 256
"""Neighbours that a host needs besides its peers: its containers', as many as a /24 holds."""
STRICT = 1
"""rp_filter, Documentation/networking/ip-sysctl.rst: a packet counts only on the interface that its answer would leave
by. Of the interface's value and that of "all" the greater is in force; 2, loose, is the greatest."""


class Facts(msgspec.Struct, frozen=True):
    """What was found on the host.

    ``sysctls``: the values of ``names()`` that there are. ``read_only``: /proc/sys is mounted so. ``neighbours``: how
    many peers are reached without a gateway, so that each needs an entry of its own in the neighbour table; left at
    none while the table is large enough for all peers. ``elsewhere``: a peer, and the device other than the external
    interface that packets to it leave by; None if there is none or it does no harm. ``services``: the families in
    which kube-proxy keeps its rules in iptables.
    """

    sysctls: Mapping[str, str]
    read_only: bool = False
    neighbours: Mapping[Family, int] = {}
    elsewhere: tuple[IPAddress, str] | None = None
    services: frozenset[Family] = frozenset()


class Requirement(msgspec.Struct, frozen=True):
    """One thing that has to be so. ``problem`` None: it is. ``sysctls`` is what makes it so, in this order; where it is
    none, ``command`` does."""

    problem: str | None
    sysctls: tuple[Sysctl, ...] = ()
    command: str = ""


def names(host: Host) -> list[str]:
    """The sysctls that ``requirements`` goes by."""
    return [
        *FORWARDING.values(),
        *BRIDGED.values(),
        *(f"{prefix}3" for prefix in NEIGHBOUR_LIMITS.values()),
        *(f"net/ipv4/conf/{name}/rp_filter" for name in ("all", host.interface)),
        *map(_accept_ra, host.advertised),
    ]


def is_strict(host: Host, sysctls: Mapping[str, str]) -> bool:
    """True if the external interface takes IPv4 packets only from where the answer goes to."""
    values = (sysctls.get(f"net/ipv4/conf/{name}/rp_filter", "0") for name in ("all", host.interface))
    return max((int(value) for value in values if value.isdecimal()), default=0) == STRICT


def requirements(config: NetworkConfig, host: Host, facts: Facts) -> list[Requirement]:
    """For the families that ``config`` has on, the most important first."""
    families = [family for family in FAMILIES if config.space(family) is not None]
    found = [_forwarding(family, host, facts.sysctls) for family in families]
    if not config.enable_nftables:
        found += _bridged([family for family in families if family in facts.services], facts.sysctls)
    if 4 in families and facts.elsewhere is not None and is_strict(host, facts.sysctls):
        found.append(_loose(host, *facts.elsewhere))
    for family in families:
        found += _room_for_neighbours(family, facts.neighbours.get(family, 0), facts.sysctls)
    return found


def problems(found: Sequence[Requirement], *, read_only: bool, set_sysctls: bool) -> list[str]:
    """A sentence with the command for each requirement that is not met. Where /proc/sys is read-only, one sentence for
    all that is to be set. ``set_sysctls``: the agent sets what it can."""
    lacking = [item for item in found if item.problem is not None]
    if read_only and (settings := [item for item in lacking if item.sysctls]):
        told = [f"{'; '.join(str(item.problem) for item in settings)}; /proc/sys is read-only here, so run on the host"]
        told[0] += f" `{_command([sysctl for item in settings for sysctl in item.sysctls])}`"
        return told + [_sentence(item, may_be_set=False) for item in lacking if not item.sysctls]
    return [_sentence(item, may_be_set=not set_sysctls and bool(item.sysctls)) for item in lacking]


def _sentence(item: Requirement, *, may_be_set: bool) -> str:
    command = _command(item.sysctls) if item.sysctls else item.command
    return f"{item.problem}; run `{command}`{', or start flanneld with --set-sysctls' if may_be_set else ''}"


def _command(sysctls: Sequence[Sysctl]) -> str:
    return f"sysctl -w {' '.join(f'{sysctl.dotted}={sysctl.value}' for sysctl in sysctls)}"


def _setting(name: str, value: str, device: str | None = None, after: tuple[tuple[str, str], ...] = ()) -> Sysctl:
    """Optional: what cannot be set is named as a requirement, and holds nothing up."""
    return Sysctl(name, value, device, optional=True, after=after)


def _accept_ra(device: str) -> str:
    return f"net/ipv6/conf/{device}/accept_ra"


def _forwarding(family: Family, host: Host, sysctls: Mapping[str, str]) -> Requirement:
    """A host that begins to forward IPv6 forgets, and from then on ignores, the default routes of router advertisements
    (rt6_purge_dflt_routers and ipv6_accept_ra of net/ipv6) at interfaces whose accept_ra is 1. At 0 it is a program
    that takes the advertisements, networkd or NetworkManager, and its routes stay (tried on 6.18)."""
    name = FORWARDING[family]
    kept = [device for device in host.advertised if sysctls.get(_accept_ra(device)) in ("1", "2")] * (family == 6)
    guards = [_setting(_accept_ra(device), "2", device) for device in kept]
    forward = _setting(name, "1", after=tuple((guard.name, guard.value) for guard in guards))
    if sysctls.get(name) != "0":
        return Requirement(None, (*guards, forward))
    problem = f"{forward.dotted} is 0: this host forwards no IPv{family} packet between containers and other hosts"
    if kept:
        problem += (
            f"; with forwarding alone the kernel would drop the route that a router advertised at {' and '.join(kept)},"
            " accept_ra=2 keeps it"
        )
    return Requirement(problem, (*guards, forward))


def _bridged(families: Sequence[Family], sysctls: Mapping[str, str]) -> Iterator[Requirement]:
    """Matters to kube-proxy alone: a container that asks a service and is given to a neighbour on its own bridge gets
    an answer from the neighbour, not from the service, if the way back does not lead through iptables."""
    harm = "a container that asks a service gets no answer from a container on its own bridge"
    missing = [BRIDGED[family] for family in families if BRIDGED[family] not in sysctls]
    if missing:
        told = f"Failed to check br_netfilter: stat /proc/sys/{missing[0]}: no such file or directory: {harm}"
        yield Requirement(told, command="modprobe br_netfilter")
    for family in families:
        setting = _setting(BRIDGED[family], "1")
        if value := sysctls.get(setting.name):
            yield Requirement(f"{setting.dotted} is 0: {harm}" if value == "0" else None, (setting,))


def _loose(host: Host, peer: IPAddress, device: str) -> Requirement:
    setting = _setting(f"net/ipv4/conf/{host.interface}/rp_filter", "2", host.interface)
    problem = (
        f"the kernel drops what {peer} sends to {host.interface}, because packets to {peer} leave through {device} and"
        f" rp_filter is strict (1)"
    )
    return Requirement(problem, (setting,))


def _room_for_neighbours(family: Family, peers: int, sysctls: Mapping[str, str]) -> Iterator[Requirement]:
    """Permanent entries, such as vxlan's for each peer, need no room since Linux 5.0, which counts them apart
    (gc_entries of net/core/neighbour.c). Before, a full table refuses them, and that failure names its cure. What needs
    room is the entry that the external interface gets for each peer on a network of its own, whatever the backend."""
    prefix, needed = NEIGHBOUR_LIMITS[family], peers + CONTAINERS
    limit = sysctls.get(f"{prefix}3", "")
    if not peers or not limit.isdecimal() or int(limit) >= needed:
        return
    room = 1 << (2 * needed - 1).bit_length()  # gc_thresh2, from which on entries are thrown out, is above needed too
    settings = tuple(_setting(f"{prefix}{n}", str(room // share)) for n, share in ((1, 8), (2, 2), (3, 1)))
    problem = (
        f"{settings[2].dotted} is {limit}: the neighbour table has no room for {peers} peers on this host's own"
        f" networks and its containers, so that some of them cannot be reached at times"
    )
    yield Requirement(problem, settings)
