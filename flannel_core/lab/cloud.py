"""The cloud that a lab's machines run in, for the backends that have a cloud's router forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import msgspec

from .cloud_process import CloudProcess
from .network import UNDERLAY4, UNDERLAY6, Machine, execute

if TYPE_CHECKING:
    from .lab import Lab

CHECK_SECONDS = 2
T = TypeVar("T")


class LabCloud(ABC):
    """One for all machines of a lab, a process of its own; the methods are its owner's view of it."""

    backend: ClassVar[str]
    server: ClassVar[str]
    """The module that the process runs."""
    port: ClassVar[int]
    """Of the API."""
    heal_seconds: ClassVar[float]
    """Within these an agent that looks every second has put right what it may: after a failure it does so with backoff,
    and the tries of the cloud's SDK come before there is one."""

    def __init__(self, directory: Path, namespace: str, environment: Mapping[str, str]) -> None:
        self.process = CloudProcess(self.server, directory, namespace, environment)
        self.process.start()
        self.instances: dict[str, str] = {}
        """What the API calls them, by the name of the machine."""
        self._namespace = namespace
        self._environment = environment
        self._forgotten = 0
        self._has_ipv4 = True

    @classmethod
    def of(cls, lab: Lab) -> Self:
        """The lab's cloud of this kind, made when it is asked for first."""
        cloud = lab.cloud(cls.backend)
        assert isinstance(cloud, cls)
        return cloud

    @property
    def options(self) -> Mapping[str, Any]:
        """The keys of "Backend" with which the agents on the machines that have joined use it."""
        address = UNDERLAY4[1] if self._has_ipv4 else f"[{UNDERLAY6[1]}]"
        return {"Endpoint": f"http://{address}:{self.port}", "CheckInterval": CHECK_SECONDS}

    @abstractmethod
    def join(self, machine: Machine) -> dict[str, str]:
        """Make ``machine`` an instance, if it is none yet. Returns the variables that agents on it are started with."""

    @abstractmethod
    def routes(self) -> dict[str, str]:
        """What the cloud's router forwards by, but for what was there before flannel: destination to next hop."""

    @abstractmethod
    def next_hop(self, machine: str) -> str:
        """What ``routes`` has for a destination behind this machine."""

    @abstractmethod
    def looks(self, machine: str) -> int:
        """How often since ``forget_requests`` agents on this machine were told all routes, as by each drift check."""

    def has_unread(self, machine: Machine) -> bool:
        """Whether a request from this machine lies at the API and is not read."""
        rows = execute(self._namespace, f"ss -Htn state established sport = :{self.port}", self._environment)
        for queued, _, _, peer in map(str.split, rows.splitlines()):  # Recv-Q Send-Q local peer
            address = peer.rpartition(":")[0].strip("[]").removeprefix("::ffff:")
            if int(queued) > 0 and address in (str(own.ip) for own in (machine.ipv4, machine.ipv6) if own):
                return True
        return False

    def forget_requests(self) -> None:
        """Count from here on."""
        self._forgotten = len(self.process.call("log"))

    def heal(self) -> None:
        """Refuse nothing more, and have all that is begun succeed."""
        self.process.call("heal")

    def _log(self, kind: type[T]) -> list[T]:
        """The API's, since ``forget_requests``."""
        return msgspec.convert(self.process.call("log")[self._forgotten :], list[kind])  # type: ignore[valid-type]
