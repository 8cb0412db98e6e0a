"""The router of a lab's cloud: forwards what the cloud's routes say, drops what an instance may not send or be sent.

Runs inside the underlay's namespace, whose bridge all machines are plugged into and have as their default gateway.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from .network import ip_batch

BRIDGE = "underlay"
PROTOCOL = 99
"""rtm_protocol of the cloud's routes. Free in iproute2's rt_protos."""
LINK_LOCAL = {4: ("224.0.0.0/4", "255.255.255.255"), 6: ("ff00::/8", "fe80::/10", "::")}
"""What the hosts of one link say to each other, whatever their addresses."""
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",  # a cloud never tells a machine of a shorter way
    f"net/ipv4/conf/{BRIDGE}/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    f"net/ipv4/conf/{BRIDGE}/rp_filter": "0",
}


class Instance(msgspec.Struct, frozen=True):
    """A machine as the router sees it: ``port`` is its device on the bridge (the machine's name), ``addresses`` are its
    own. ``forwards``: it may send from, and is sent for, other addresses than these (AWS: source/destination check off;
    GCE: canIpForward)."""

    port: str
    addresses: tuple[str, ...]
    forwards: bool = False


class Router:
    """``set_up`` once, then ``apply`` after each change of the cloud. Not for two threads at once."""

    def __init__(self) -> None:
        self._routes: dict[str, str] = {}

    def set_up(self, addresses: Iterable[str] = ()) -> None:
        """Forward. What no route leads to is dropped in silence. ``addresses``, with their prefix lengths, are the
        router's own besides those it has (the metadata service's)."""
        for name, value in SYSCTLS.items():
            setting = Path("/proc/sys", name)
            if setting.exists():  # a kernel without IPv6 has none of its settings
                setting.write_text(value)
        families = ["0.0.0.0/0", *(["::/0"] if Path("/proc/sys/net/ipv6").exists() else [])]
        ip_batch(f"route add blackhole {everything}" for everything in families)
        ip_batch(f"addr add {address} dev {BRIDGE}{' nodad' if ':' in address else ''}" for address in addresses)

    def apply(self, instances: Collection[Instance], routes: Mapping[str, str]) -> None:
        """Forward exactly ``routes``, from destination to the address of an instance. Raises LabError."""
        commands = [f"route del {destination} proto {PROTOCOL}" for destination in self._routes.keys() - routes.keys()]
        commands += [
            f"route replace {destination} via {gateway} dev {BRIDGE} proto {PROTOCOL}"
            for destination, gateway in routes.items()
            if self._routes.get(destination) != gateway
        ]
        ip_batch(commands)
        self._routes = dict(routes)
        subprocess.run(["nft", "-f", "-"], input=rules(instances), text=True, check=True)


def rules(instances: Collection[Instance]) -> str:
    """For nft: the whole table, in place of the one that is there."""
    table = "bridge flannel-lab-cloud"
    guarded = [instance for instance in instances if not instance.forwards]
    sent = [rule for instance in guarded for rule in _drops("iifname", "saddr", instance)]
    received = [rule for instance in guarded for rule in _drops("oifname", "daddr", instance)]
    chains = [
        _chain("sent", "prerouting", sent),
        _chain("forwarded", "forward", received),  # from machine to machine, past the router
        _chain("routed", "output", received),
    ]
    return "\n".join([f"table {table} {{}}", f"delete table {table}", f"table {table} {{", *chains, "}", ""])


def _drops(device: str, side: str, instance: Instance) -> Iterable[str]:
    addresses = [ip_address(address) for address in instance.addresses]
    for family, protocol in ((4, "ip"), (6, "ip6")):
        own = [str(address) for address in addresses if address.version == family]
        allowed = ", ".join([*own, *LINK_LOCAL[family]])
        yield f'{device} "{instance.port}" {protocol} {side} != {{ {allowed} }} counter drop'


def _chain(name: str, hook: str, lines: Iterable[str]) -> str:
    return "\n".join([f"chain {name} {{ type filter hook {hook} priority 0;", *lines, "}"])
