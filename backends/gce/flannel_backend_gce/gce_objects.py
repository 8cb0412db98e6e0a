"""What a Google Cloud network holds for a host: values."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from flannel_core.objects import Identity, Object

PREFIX = "flannel-"
PRIORITY = 1000
"""Of every route of ours, and of any route for which nobody says otherwise."""
DASHES = str.maketrans("./:", "---")


class Place(msgspec.Struct, frozen=True):
    """The routes of a project as seen by one instance: those of ours there lead to ``hop``, the instance
    (``projects/P/zones/Z/instances/NAME``) or one of its addresses."""

    project: str
    hop: str

    def __str__(self) -> str:
        return f"{self.project} {self.hop}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The inverse of ``str``; None for what is no place."""
        project, _, hop = text.partition(" ")
        return cls(project, hop) if project and hop else None


class GceRoute(Object, frozen=True):
    """``destination`` is reached through ``hop`` in ``network`` (``projects/P/global/networks/NAME``). ``project`` is
    the network's, and so the route's; in it no two routes have one name, whatever their networks. ``tags``: of the
    instances that the route is for, none for all."""

    kind: ClassVar[str] = "gce route"

    project: str
    network: str
    destination: str
    hop: str
    priority: int = PRIORITY
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return route_name(self.destination)

    @property
    def identity(self) -> Identity:
        return (self.kind, self.project, self.name)

    @property
    def record(self) -> str:
        return str(Place(self.project, self.hop))

    def describe(self) -> str:
        return f"route {self.name} to {self.destination} via {self.hop.rpartition('/')[2]} in {self.project}"


def route_name(destination: str) -> str:
    """``flannel-10-0-43-0-24``, as Go flannel. Character by character, so that no two destinations share a name:
    ``flannel-fc00-5-0-1---64``."""
    return PREFIX + destination.translate(DASHES)


def short(url: str) -> str:
    """A resource's URL from ``projects/`` on: the API takes any form, and answers with its own host in front."""
    return url[url.find("projects/") :] if "projects/" in url else url
