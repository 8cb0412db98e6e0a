"""Network namespaces and what joins them: the lab's machines, their underlay and their pods.

Everything is made inside namespaces of the lab's own. A veth pair is created in one of them with its peer in another,
so that not even for a moment anything of ours stands in the machine's own namespace.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import TypeVar

from flannel_core.errors import FlannelError

NAMESPACES = Path("/run/netns")
"""Where ``ip netns`` keeps its names."""
UNDERLAY4 = IPv4Network("198.51.100.0/24")
"""TEST-NET-2 of RFC 5737: the machines' own addresses."""
UNDERLAY6 = IPv6Network("2001:db8:51::/64")
"""Out of the documentation prefix of RFC 3849."""
MOST_MACHINES = 240
FIRST_MACHINE = 10
"""The first machine is .11, the bridge that all are plugged into .1."""

CLONE_NEWNET = 0x40000000
"""linux/sched.h."""

IPInterface = IPv4Interface | IPv6Interface
T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(FlannelError):
    """The lab could not do what it was asked; ``str(error)`` holds the command and what it said."""


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_a_thread(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """Namespaces belong to threads, so only a thread that ends right afterwards ever leaves this process's own."""

    def there() -> T:
        enter()
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(there).result()


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Call ``work`` in a thread that is inside ``namespace``. Sockets that it makes stay there, processes that it
    starts begin there. Raises OSError if there is no such namespace."""

    def enter() -> None:
        descriptor = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(descriptor, CLONE_NEWNET))
        finally:
            os.close(descriptor)

    return _in_a_thread(enter, work)


def in_a_throw_away_namespace(work: Callable[[], T]) -> T:
    """Call ``work`` in a thread with a new, empty network namespace that vanishes with it. Raises OSError where none
    may be made."""
    return _in_a_thread(lambda: _check(_libc.unshare(CLONE_NEWNET)), work)


def ip_batch(commands: Iterable[str], namespace: str | None = None) -> None:
    """Run ``ip`` commands (without the word ``ip``) in one process. Raises LabError with the one that failed."""
    lines = list(commands)
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(["ip", *where, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        failed = next((lines[int(word) - 1] for word in said.rpartition("-:")[2].split()[:1] if word.isdigit()), "")
        raise LabError(
            f"`{shlex.join(['ip', *where, *failed.split()])}` failed: {said.splitlines()[0] if said else ''}"
        )


def make_namespaces(names: Iterable[str]) -> None:
    """Make empty namespaces, ``lo`` up. IPv6 addresses in them are usable at once: a machine that came up long ago has
    its duplicate address detection, up to 2 s per device, behind it."""
    names = list(names)
    ip_batch(f"netns add {name}" for name in names)
    for name in names:
        inside(name, _no_duplicate_address_detection)
        ip_batch(["link set lo up"], name)


def _no_duplicate_address_detection() -> None:
    setting = Path("/proc/sys/net/ipv6/conf/default/accept_dad")
    if setting.exists():
        setting.write_text("0")


def execute(namespace: str, command: str, environment: Mapping[str, str]) -> str:
    """Run one command in ``namespace`` as ``ip netns exec`` does and return what it printed. Raises LabError."""
    words = ["ip", "netns", "exec", namespace, *shlex.split(command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{command}` in {namespace} ended with {done.returncode}: {said}")
    return done.stdout


class Underlay:
    """A bridge in a namespace of its own, the machines' default gateway in both families."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def make(self) -> None:
        make_namespaces([self.namespace])
        ip_batch(
            [
                # Without a querier, snooping only delays the neighbour discovery of a port that has just come up.
                "link add underlay type bridge mcast_snooping 0",
                "link set underlay up",
                f"addr add {UNDERLAY4[1]}/{UNDERLAY4.prefixlen} dev underlay",
                f"addr add {UNDERLAY6[1]}/{UNDERLAY6.prefixlen} dev underlay nodad",
            ],
            self.namespace,
        )

    def plug_in(self, machines: Iterable[Machine]) -> None:
        """Make the machines' namespaces, and their ``eth0`` with its other end on the bridge."""
        machines = list(machines)
        make_namespaces(machine.namespace for machine in machines)
        ip_batch(
            (
                command
                for machine in machines
                for command in (
                    f"link add {machine.name} type veth peer name eth0 netns {machine.namespace}",
                    f"link set {machine.name} master underlay up",
                )
            ),
            self.namespace,
        )
        for machine in machines:
            machine.set_up()


class Machine:
    """One virtual host without any flannel on it: a namespace, ``eth0``, a default route per family that is on."""

    def __init__(self, name: str, namespace: str, number: int, *, ipv4: bool, ipv6: bool) -> None:
        self.name = name
        self.namespace = namespace
        self.ipv4 = IPv4Interface((UNDERLAY4[FIRST_MACHINE + number], UNDERLAY4.prefixlen)) if ipv4 else None
        self.ipv6 = IPv6Interface((UNDERLAY6[FIRST_MACHINE + number], UNDERLAY6.prefixlen)) if ipv6 else None

    def set_up(self) -> None:
        commands = ["link set eth0 up"]
        if self.ipv4:
            commands += [f"addr add {self.ipv4} dev eth0", f"route add default via {UNDERLAY4[1]}"]
        if self.ipv6:
            commands += [f"addr add {self.ipv6} dev eth0 nodad", f"route add default via {UNDERLAY6[1]}"]
        ip_batch(commands, self.namespace)


class Pod:
    """A container's namespace behind a bridge of its machine, as the CNI plugin would make it.

    ``bridge`` is the device on the machine, ``namespace`` the pod's own. Its addresses follow the host's subnet.
    """

    def __init__(self, machine: str, namespace: str, bridge: str) -> None:
        self.machine = machine
        self.namespace = namespace
        self.bridge = bridge
        self.addresses: dict[int, str] = {}
        self._given: tuple[tuple[IPInterface, ...], int] | None = None

    def make(self) -> None:
        veth = f"{self.bridge}-pod"
        make_namespaces([self.namespace])
        ip_batch(
            [
                f"link add {self.bridge} type bridge mcast_snooping 0",
                f"link add {veth} type veth peer name eth0 netns {self.namespace}",
                f"link set {veth} master {self.bridge} up",
                f"link set {self.bridge} up",
            ],
            self.machine,
        )
        ip_batch(["link set eth0 up"], self.namespace)

    def give(self, gateways: tuple[IPInterface, ...], mtu: int) -> None:
        """Put the subnets' first addresses (``gateways``) on the bridge and the next ones into the pod; ``mtu`` in
        bytes goes on every device between them. Does nothing if all this stands already."""
        if self._given == (gateways, mtu):
            return
        machine = [f"link set {self.bridge}-pod mtu {mtu}"]
        pod = [f"link set eth0 mtu {mtu}"]
        if self._given is None or self._given[0] != gateways:
            machine.append(f"addr flush dev {self.bridge} scope global")
            pod.append("addr flush dev eth0 scope global")
            self.addresses = {}
            for gateway in gateways:
                nodad = " nodad" if gateway.version == 6 else ""
                address = gateway + 1
                machine.append(f"addr add {gateway} dev {self.bridge}{nodad}")
                pod.append(f"addr add {address.ip}/{gateway.network.prefixlen} dev eth0{nodad}")
                # An IPv6 route outlives the address that it was made with.
                pod.append(f"route replace default via {gateway.ip} dev eth0")
                self.addresses[gateway.version] = str(address.ip)
        machine.append(f"link set {self.bridge} mtu {mtu}")
        ip_batch(machine, self.machine)
        ip_batch(pod, self.namespace)
        self._given = (gateways, mtu)


def interface_of(subnet: IPv4Network | IPv6Network) -> IPInterface:
    """A subnet's first address, with its prefix length: what subnet.env names and the CNI bridge gets."""
    if isinstance(subnet, IPv4Network):
        return IPv4Interface((subnet[1], subnet.prefixlen))
    return IPv6Interface((subnet[1], subnet.prefixlen))
