"""What a VPC holds for a host: values."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from flannel_core.objects import Identity, Object


class Place(msgspec.Struct, frozen=True):
    """One route table as seen by one network interface: what there has that interface as its next hop is ours."""

    region: str
    table: str
    interface: str

    def __str__(self) -> str:
        return f"{self.region}/{self.table}/{self.interface}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The inverse of ``str``; None for what is no place."""
        parts = text.split("/")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


class VpcRoute(Object, frozen=True):
    """``destination`` is reached through ``interface`` (``eni-...``), in a table of a region."""

    kind: ClassVar[str] = "vpc route"

    region: str
    table: str
    destination: str
    interface: str

    @property
    def identity(self) -> Identity:
        return (self.kind, self.table, self.destination)

    @property
    def record(self) -> str:
        return str(Place(self.region, self.table, self.interface))

    def describe(self) -> str:
        return f"route {self.destination} via {self.interface} in {self.table}"


class SourceCheck(Object, frozen=True):
    """Whether the VPC drops what ``interface`` sends from, or is sent for, other addresses than its own."""

    kind: ClassVar[str] = "source/destination check"
    removable: ClassVar[bool] = False

    region: str
    interface: str
    enabled: bool

    @property
    def identity(self) -> Identity:
        return (self.kind, self.interface)

    def describe(self) -> str:
        return f"source/destination check of {self.interface} {'on' if self.enabled else 'off'}"
