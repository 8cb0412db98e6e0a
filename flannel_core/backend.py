"""What the author of a backend subclasses: pure functions from values to the objects that should exist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from .host import Host
from .lease import Family, Lease
from .netconf import NetworkConfig
from .objects import Object
from .target import Target


class Anything(Collection[str]):
    """A collection that contains every string: ``accepts`` of a backend that forwards to peers of any type."""

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


ANY = Anything()

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)
DataT = TypeVar("DataT")


class NoOptions(msgspec.Struct, frozen=True):
    """A backend without keys of its own."""


class Unreachable(msgspec.Struct, frozen=True):
    """Yielded by ``peer`` in place of objects: why this peer, or one family of it, cannot be served, and the cure.

    It is shown in the status; every other peer goes on, and ``peer`` is asked again when the host or the lease changes.
    """

    reason: str


class Announcement(msgspec.Struct, frozen=True):
    """What this host tells its peers, and the MTU that goes into subnet.env (bytes, inside the tunnel).

    ``ipv4_data`` and ``ipv6_data`` are instances of the backend's ``Data``, or None where it has none. ``private`` is
    what only this host needs of what ``prepare`` found (a key, an instance id): never published, never shown.
    ``notes`` are sentences for the status about how this backend works on this host, and why so.
    """

    mtu: int
    ipv4_data: Any = None
    ipv6_data: Any = None
    private: Any = None
    notes: tuple[str, ...] = ()

    def data(self, family: Family) -> Any:
        return self.ipv4_data if family == 4 else self.ipv6_data


class Node(msgspec.Struct, frozen=True):
    """This host as the planning functions see it. ``lease`` is our own (data decoded), None before it is acquired."""

    config: NetworkConfig
    host: Host
    announcement: Announcement
    lease: Lease | None = None


class Backend(ABC, Generic[OptionsT, DataT]):
    """How packets move. Constructed with its decoded options; holds nothing else.

    The agent calls ``prepare``, applies ``local`` with no lease yet (the devices), calls ``prepare`` again with the
    host as it then is (so what is announced is what the kernel really has), acquires the lease, applies ``local``
    once more and ``peer`` for each admitted lease. ``local`` and ``peer`` are called again whenever one of their
    arguments changes and must return the same objects for the same arguments.
    """

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    """The keys of ``Backend`` in net-conf.json. Field names are the JSON keys, matched without regard to case;
    types, defaults, ``msgspec.Meta(ge=..., le=..., description=...)`` are what errors and the docs are made of;
    ``extra={"secret": True}`` keeps a value out of owned.json."""
    Data: ClassVar[Any] = None
    """The msgspec type of BackendData in a lease, or None: no data. A peer whose data does not fit is refused."""
    published_type: ClassVar[str] = ""
    """BackendType in the lease; "" leaves it out, as Go's udp, alloc, aws-vpc and gce do."""
    accepts: ClassVar[Collection[str]] = frozenset()
    """The BackendTypes of peers that this backend can forward to. :data:`ANY`: all."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Keys of ``Backend`` with which it does something, where it does nothing without: the lab's, if given none."""
    handshake_seconds: ClassVar[float] = 0.0
    """How long the first packet between two hosts may take once all objects stand, where the hosts have to agree on
    something first: the lab and the conformance kit wait for it."""
    restart_options: ClassVar[frozenset[str]] = frozenset()
    """The fields of Options that a running agent cannot follow. Any other one that changes gives a new instance, whose
    ``prepare``, ``local`` and ``peer`` are asked from then on; ``targets`` was asked once, of the first instance."""
    kernel_modules: ClassVar[tuple[str, ...]] = ()
    """What the kernel must have, for the message when a device cannot be made."""
    state_files: ClassVar[tuple[str, ...]] = ()
    """Names of what the backend keeps in the state directory (a key): ``flannelctl cleanup`` removes it."""

    def __init__(self, options: OptionsT, state_directory: Path = Path("/run/flannel")) -> None:
        """``state_directory`` is the agent's only one: a key or a socket of the backend's own belongs there."""
        self.options = options
        self.state_directory = state_directory

    @abstractmethod
    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        """What to announce. The one method with effects: it may read or make a key. ``previous`` is the lease that
        this host held before, data decoded where it fits. Called any number of times, and answers the same while the
        host is the same. FlannelError: this cannot work on this host; shown in the status and tried again, since
        another configuration may cure it; CannotGoOn: the agent ends."""

    @abstractmethod
    def local(self, node: Node) -> Iterable[Object]:
        """What this host needs whoever the peers are. With ``node.lease`` None: only what needs no subnet."""

    @abstractmethod
    def peer(self, node: Node, lease: Lease) -> Iterable[Object | Unreachable]:
        """What makes one peer reachable. ``lease`` was admitted: its data is of type ``Data``."""

    def identities(self, lease: Lease) -> Iterable[object]:
        """What only one peer may claim besides its subnets: MACs, public keys. ``lease`` data is decoded."""
        return ()

    def refusal(self, lease: Lease) -> str | None:
        """Why this peer's data cannot be trusted (a multicast MAC, a zero key), or None. Asked by admission."""
        return None

    def targets(self) -> Iterable[Target]:
        """Where the objects live that are not the kernel's. Asked once in the life of an agent, and again by a later
        one with another backend, to take away what was left: what can change belongs into the objects."""
        return ()
