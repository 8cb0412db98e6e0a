"""A kernel in memory: what it holds, what it takes along in silence, and what it tells of.

Measured on 6.1 and 6.18 (tests/netlink): a device that goes down, disappears or loses its last IPv4 address takes its
IPv4 routes with it without a word; one whose MAC changes loses its permanent neighbours.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import msgspec

from flannel_core.objects import Address, FdbEntry, Identity, Link, Neighbour, Object, OtherLink, Route, Vxlan

RTPROT_KERNEL = 2
"""linux/rtnetlink.h."""
EXTERNAL = "eth0"


class WatchDied(Exception):
    """What a watch ends with."""


class Told(msgspec.Struct, frozen=True):
    """A notification: ``item`` came, or (``gone``) went; of a link or an address only that something about its device
    changed can be relied on. ``own``: the agent that listens did it."""

    item: Object
    gone: bool
    own: bool


class Kernel:
    """``objects`` is everything there is, whoever made it. What is done through these methods is done by others, unless
    ``own`` says that it is the agent itself."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects: dict[Identity, Object] = {}
        self.settings: dict[Identity, Object] = {}
        """Sysctls and offloads of devices."""
        self.rules: dict[Identity, Object] = {}
        """Traffic rules."""
        self.changes = 0
        """How often anything became other than it was."""
        self.refuse = 0
        """So many writes of the agent fail, as where memory is short for a moment."""
        self.mute = False
        """No question is answered and nothing can be written."""
        self._listeners: list[asyncio.Queue[Told | WatchDied | None]] = []

    # --- listening -----------------------------------------------------------------------------------------------

    def subscribe(self) -> asyncio.Queue[Told | WatchDied | None]:
        queue: asyncio.Queue[Told | WatchDied | None] = asyncio.Queue()
        self._listeners.append(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Told | WatchDied | None]) -> None:
        self._listeners.remove(queue)

    def overrun(self) -> None:
        """Notifications are lost, which is told (ENOBUFS): None."""
        for queue in self._listeners:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)

    def end_watches(self) -> None:
        """Whoever listens has to begin anew."""
        for queue in self._listeners:
            queue.put_nowait(WatchDied("simulated"))

    def _tell(self, item: Object, *, gone: bool = False, own: bool = False) -> None:
        for queue in self._listeners:
            queue.put_nowait(Told(item, gone, own))

    # --- what there is -------------------------------------------------------------------------------------------

    def link(self, name: str | None) -> Link | None:
        found = self.objects.get((Link.kind, name))
        return found if isinstance(found, Link) else None

    def on(self, device: str) -> Iterator[Object]:
        """What lies on ``device``, itself excepted."""
        return iter([item for item in self.objects.values() if item.on_device == device and not isinstance(item, Link)])

    def addresses(self, device: str, version: int) -> list[Address]:
        return [
            item
            for item in self.on(device)
            if isinstance(item, Address) and ip_interface(item.address).version == version
        ]

    def is_connected(self, device: str, gateway: str) -> bool:
        """Whether ``gateway`` is on a network that an address of ``device`` is in."""
        address = ip_address(gateway)
        return any(address in ip_interface(item.address).network for item in self.addresses(device, address.version))

    # --- what is done to it --------------------------------------------------------------------------------------

    def put(self, item: Object, *, own: bool = False) -> None:
        """Make it so, with all that follows."""
        before = self.objects.get(item.identity)
        self.objects[item.identity] = item
        self.changes += 1
        if isinstance(item, Link):
            self._link_changed(item, before)
        elif isinstance(item, Address) and (link := self.link(item.device)) and link.up:
            self._connect(item)
        self._tell(item, own=own)

    def remove(self, item: Object, *, own: bool = False) -> None:
        """Take it away, with all that goes along."""
        if self.objects.pop(item.identity, None) is None:
            return
        self.changes += 1
        if isinstance(item, Link):
            for lying in self.on(item.name):
                self._vanish(lying)
            self.settings = {key: held for key, held in self.settings.items() if held.on_device != item.name}
        elif isinstance(item, Address):
            self._disconnect(item)
        self._tell(item, gone=True, own=own)

    def change_link(self, name: str, **changes: object) -> None:
        """``up``, ``mac``, ``mtu``."""
        if (link := self.link(name)) is not None:
            self.put(msgspec.structs.replace(link, **changes))

    def _link_changed(self, link: Link, before: Object | None) -> None:
        assert before is None or isinstance(before, Link)
        if before is not None and before.mac != link.mac:
            for item in self.on(link.name):
                if isinstance(item, Neighbour):
                    self._vanish(item)
        if before is not None and before.up and not link.up:
            for item in self.on(link.name):
                stays = isinstance(item, FdbEntry) or (isinstance(item, Address) and ":" not in item.address)
                if not stays:
                    self._vanish(item)
        if link.up and before is not None and not before.up:
            for version in (4, 6):
                for address in self.addresses(link.name, version):
                    self._connect(address)

    def _connect(self, address: Address) -> None:
        interface = ip_interface(address.address)
        if interface.network.prefixlen < interface.max_prefixlen:
            route = Route(str(interface.network), address.device, protocol=RTPROT_KERNEL)
            self.objects[route.identity] = route

    def _disconnect(self, address: Address) -> None:
        interface = ip_interface(address.address)
        last = interface.version == 4 and not self.addresses(address.device, 4)
        for item in self.on(address.device):
            if not isinstance(item, Route) or (":" in item.destination) != (interface.version == 6):
                continue
            if last or (item.protocol == RTPROT_KERNEL and ip_network(item.destination) == interface.network):
                self._vanish(item)

    def _vanish(self, item: Object) -> None:
        """Without a notification: of some of these the kernel tells, of others not, so none can be relied on."""
        del self.objects[item.identity]

    # --- what the agent does -------------------------------------------------------------------------------------

    def write(self, item: Object, previous: Object | None) -> str | None:
        """What the agent's put does; why it failed. A foreign object in the way is never overwritten: in a real kernel
        there is a window as long as a notification takes, in which it may be."""
        if self.refuse > 0:
            self.refuse -= 1
            return "No buffer space available"
        have = self.objects.get(item.identity)
        if isinstance(item, Link):
            return self._write_link(item, have)
        if item.on_device is not None and self.link(item.on_device) is None:
            return f"no device {item.on_device}"
        if isinstance(item, Route) and (reason := self._unroutable(item)):
            return reason
        if have is not None and not item.satisfied_by(have) and not _is_replaceable(have, previous):
            return "it is in the way"
        if have != item:
            self.put(item, own=True)
        return None

    def _write_link(self, item: Link, have: Object | None) -> str | None:
        assert isinstance(item.info, Vxlan)
        for other in list(self.objects.values()):
            if isinstance(other, Link) and isinstance(other.info, Vxlan) and other.name != item.name:
                mine, theirs = item.info, other.info
                if mine.vni == theirs.vni and (":" in mine.local) == (":" in theirs.local):
                    return f"{other.name} has this VNI"
        if isinstance(have, Link) and isinstance(have.info, OtherLink):
            return f"{have.describe()} has its name"
        if isinstance(have, Link) and item.must_be_remade(have):
            self.remove(have, own=True)
        self.put(item, own=True)
        return None

    def _unroutable(self, route: Route) -> str | None:
        link = self.link(route.device)
        if link is not None and not link.up:
            return "Network is down"
        if route.gateway and route.device and not route.onlink and not self.is_connected(route.device, route.gateway):
            return "Network is unreachable"
        return None


def _is_replaceable(have: Object, previous: Object | None) -> bool:
    return previous is not None and (
        not isinstance(have, Route) or have.protocol == getattr(previous, "protocol", None)
    )
