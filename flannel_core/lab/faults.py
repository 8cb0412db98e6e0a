"""What an operator, a reboot of something else or a bug can take away from a running agent, as shell commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flannel_core.lease import Family

from .hosts import Host
from .network import UNDERLAY4, UNDERLAY6

NEW_MAC = "02:00:5e:00:53:01"
"""A locally administered unicast address that no device has by itself."""


@dataclass(frozen=True)
class Fault:
    """``commands(host, peer, family)`` are run on ``host``; what it reaches ``peer`` by is then gone."""

    name: str
    backend: str
    commands: Callable[[Host, Host, Family], Iterable[str]]

    def strike(self, host: Host, peer: Host, family: Family) -> None:
        """Do it. Raises LabError if there was nothing to take away."""
        for command in self.commands(host, peer, family):
            host.run(command)


def device(family: Family) -> str:
    """The name of the vxlan device of a family, with the default VNI."""
    return "flannel.1" if family == 4 else "flannel-v6.1"


def subnet(host: Host, family: Family) -> str:
    return str(host.subnet if family == 4 else host.subnet6)


def vtep(host: Host, family: Family) -> str:
    """The address that a host's subnet is reached by through the tunnel: its first."""
    return str((host.subnet if family == 4 else host.subnet6).network_address)


def mac(host: Host, family: Family) -> str:
    """The MAC of the host's vxlan device."""
    return host.run(f"cat /sys/class/net/{device(family)}/address").strip()


def _route(host: Host, peer: Host, family: Family) -> Iterable[str]:
    return [f"ip route del {subnet(peer, family)}"]


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


def _interface_down_and_up(host: Host, peer: Host, family: Family) -> Iterable[str]:
    """With what the operator's network manager then puts back: the default route, and in IPv6 the address."""
    yield "ip link set eth0 down"
    yield "ip link set eth0 up"
    if family == 6:
        yield f"ip addr replace {host.machine.ipv6} dev eth0 nodad"
    yield f"ip route replace default via {UNDERLAY4[1] if family == 4 else UNDERLAY6[1]}"


def _interface_address(host: Host, peer: Host, family: Family) -> Iterable[str]:
    """Taken away and put back, as a DHCP client that starts again does."""
    address = host.machine.ipv4 if family == 4 else host.machine.ipv6
    yield f"ip addr del {address} dev eth0"
    yield f"ip addr add {address} dev eth0{'' if family == 4 else ' nodad'}"
    yield f"ip route replace default via {UNDERLAY4[1] if family == 4 else UNDERLAY6[1]}"


FAULTS = (
    Fault("route deleted", "vxlan", _route),
    Fault("neighbour deleted", "vxlan", _neighbour),
    Fault("FDB entry deleted", "vxlan", _fdb),
    Fault("address deleted", "vxlan", _address),
    Fault("device deleted", "vxlan", _device),
    Fault("device down", "vxlan", _down),
    Fault("device down and up", "vxlan", _down_and_up),
    Fault("MAC changed", "vxlan", _new_mac),
    Fault("interface down and up", "vxlan", _interface_down_and_up),
    Fault("route deleted", "host-gw", _route),
    Fault("interface down and up", "host-gw", _interface_down_and_up),
    Fault("address deleted and added", "host-gw", _interface_address),
)
