"""What the author of a store subclasses: where leases live and how their changes are heard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import msgspec

from .errors import FlannelError
from .lease import IPAddress as IPAddress
from .lease import IPNetwork, Lease, Malformed
from .netconf import NetworkConfig

Capability = Literal["list", "release", "reserve", "set_config", "expiry"]


class StoreError(FlannelError):
    """The store cannot be used at all, whatever is waited for: exit 1. ``str(error)`` holds the cure."""


class StoreUnavailable(Exception):
    """The store does not answer now. Said once, shown in the status, tried again with backoff."""


class OutOfSubnets(Exception):
    """No subnet is free. Waited for; ``str(error)`` says how many there are and how to get more."""


class SubnetNotAssigned(Exception):
    """The subnet is another's to give (Kubernetes' podCIDR), and not given yet. Waited for; ``str(error)`` says whose,
    and the cure."""


class NoSuchLease(FlannelError):
    """``release`` of a subnet that nobody holds."""


class ConfigText(msgspec.Struct, frozen=True):
    """net-conf.json as it stands, None where there is none yet. ``source`` names it for error messages: a file's
    path, or the store's key (``/coreos.com/network/config``)."""

    text: bytes | None
    source: str


class Snapshot(msgspec.Struct, frozen=True):
    """Every lease there is, first and after every gap. ``cluster`` and ``revision`` tell a restored store."""

    leases: tuple[Lease, ...]
    malformed: tuple[Malformed, ...] = ()
    revision: int = 0
    cluster: str = ""


class Change(msgspec.Struct, frozen=True):
    """The entry ``key`` is now ``entry``; None: it is gone (released, expired). Before the first Snapshot only adds."""

    key: str
    entry: Lease | Malformed | None
    revision: int = 0


class Alive(msgspec.Struct, frozen=True):
    """The store answered and there is nothing new: the watch is quiet, not dead."""


class Lost(msgspec.Struct, frozen=True):
    """Our lease is gone. ``reason`` for a person; ``holder`` is who has the subnet now, None if it is free."""

    reason: str
    holder: Lease | None = None


class PublicAddresses(msgspec.Struct, frozen=True):
    """Where this host is to be reached at; None: the store does not say."""

    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None


class StoreContext(msgspec.Struct, frozen=True):
    """What every store is given besides its options. ``net_config_path`` is set only where the user gave it."""

    state_directory: Path
    net_config_path: Path | None = None
    dry_run: bool = False
    """True: no call may write anything, anywhere (``config`` would write what stands at ``net_config_path``)."""


class Request(msgspec.Struct, frozen=True):
    """What a host asks for. ``announcement`` is a lease whose subnets are not chosen yet (see ``Wish``)."""

    config: NetworkConfig
    wish: Wish
    dry_run: bool = False
    """True: answer what would be acquired (revision 0 if it is not ours yet) and write nothing."""


class Wish(msgspec.Struct, frozen=True):
    """Who asks, with what to publish.

    The public addresses (None where the family is off); ``backend_type`` and the raw JSON of its data; what this host
    remembers: ``key`` and ``created`` of its last lease, and the subnets that subnet.env names.
    """

    public_ipv4: IPAddress | None
    public_ipv6: IPAddress | None
    backend_type: str = ""
    ipv4_data: bytes | None = None
    ipv6_data: bytes | None = None
    remembered_key: str | None = None
    remembered_created: int = 0
    previous_subnets: tuple[IPNetwork, ...] = ()


class NoOptions(msgspec.Struct, frozen=True):
    """A store without options."""


OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)


class SubnetStore(ABC, Generic[OptionsT]):
    """A store of leases.

    Every method may raise StoreUnavailable (tried again by the caller, with backoff) or StoreError (ends the agent).
    The two iterators never end and reconnect by themselves: while the store is away they raise nothing and yield
    nothing; ``unavailable`` says why. All calls come from one event loop; blocking work belongs into a thread.
    """

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    """Each field is an option of flanneld and flannelctl: ``--NAME-FIELD`` (or
    ``msgspec.Meta(extra={"option": "kube-api-url"})``), and the FLANNELD_ variable of that name."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    def __init__(self, options: OptionsT, context: StoreContext) -> None:
        self.options = options
        self.context = context
        self.location = ""
        """Where the store is (a path; endpoints and prefix), without secrets: named in the status, and what tells the
        store that a remembered lease belongs to from another."""
        self.on_renewal: Callable[[Lease], None] = lambda lease: None
        """Set by the agent; ``keep`` calls it with the lease as it is after each renewal."""
        self.on_contest: Callable[[], None] = lambda: None
        """Set by the agent; ``keep`` calls it when another host has asked for our lease (see ``contest``)."""
        self.unavailable: str | None = None
        """Why the store does not answer just now; None while it does. Shown in the status."""

    async def open(self) -> None:
        """Get ready; reaching a server is not needed for that. Raises StoreError."""

    async def close(self) -> None:
        """Give everything back. The lease stays."""

    async def public_addresses(self) -> PublicAddresses:
        """What an operator wrote into the store for this host to be reached at; it wins over ``--public-ip``. Asked
        before each start. The default: none."""
        return PublicAddresses()

    @abstractmethod
    def config(self) -> AsyncIterator[ConfigText]:
        """net-conf.json now (its absence too), then each change."""

    @abstractmethod
    async def previous(self, wish: Wish) -> Lease | None:
        """The lease that this host holds already: by the remembered key if its ``created`` agrees, else by public
        address (never by an unspecified one)."""

    @abstractmethod
    async def acquire(self, request: Request) -> Lease:
        """A lease for this host: ``previous`` if it fits the configuration, else the subnet of subnet.env if free,
        else a free one. Compare-and-set; a lost race takes the next. A reservation stays one. Raises OutOfSubnets,
        SubnetNotAssigned."""

    @abstractmethod
    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        """Publish what changed (address, data): same subnet, same ``created``. Raises LeaseLost."""

    @abstractmethod
    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        """Renew ``lease`` ``margin_seconds`` before it expires, and when another host asks for it (``contest``), for
        ever; return only when it is gone or another's."""

    async def contest(self, lease: Lease, seconds: float) -> bool:
        """Whether another host keeps ``lease``: it is written once more as it stands, which every ``keep`` answers by a
        renewal, and that is waited for. Asked before a lease is taken that only its public address makes ours. The
        default: no, for stores that give subnets by something else than an address."""
        return False

    @abstractmethod
    def leases(self) -> AsyncIterator[Snapshot | Change | Alive]:
        """All leases, ours among them: a Snapshot after every gap, the first one possibly after Changes that only add.
        Alive at least every 10 s, or as often as the server lets one know (a Kubernetes one where no node changes: each
        90 s)."""

    async def ready(self) -> None:
        """Called once traffic flows on this host (Kubernetes clears NetworkUnavailable)."""

    async def list(self) -> Snapshot:
        """For flannelctl. Capability ``list``."""
        raise NotImplementedError

    async def release(self, subnet: IPNetwork) -> None:
        """Give a subnet back. Capability ``release``. Raises NoSuchLease."""
        raise NotImplementedError

    async def give_up(self, lease: Lease) -> bool:
        """Give ``lease`` back as long as it stands as it was (``Lease.continues``). False: it was gone, or another's
        already. Capability ``release``; a store with transactions looks and deletes in one."""
        for entry in (await self.list()).leases:
            if entry.continues(lease):
                await self.release(entry.subnets[0])
                return True
        return False

    async def reserve(self, lease: Lease) -> Lease:
        """Make a lease that never expires. Capability ``reserve``."""
        raise NotImplementedError

    async def set_config(self, text: bytes) -> None:
        """Write net-conf.json. Capability ``set_config``."""
        raise NotImplementedError


class LeaseLost(Exception):
    """``announce`` found that the lease is not ours any more."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.reason)
        self.lost = lost
