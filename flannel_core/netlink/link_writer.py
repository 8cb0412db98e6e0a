"""Writing links. They are few: one at a time, each looked at right before it is touched."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence

import msgspec

from ..objects import Link, OtherLink, Vxlan
from ..target import Failure, Put
from . import links
from .devices import link_names
from .links import LinkRow, MissingDevice
from .reasons import explain, in_the_way, missing_device, other_type, taken_vni
from .socket import NetlinkError, NetlinkSocket


class LinkWriter:
    """Makes, changes and removes links; a device of our name but of another type is never touched."""

    def __init__(self, kernel: NetlinkSocket) -> None:
        self._kernel = kernel

    def remove(self, unwanted: Sequence[Link]) -> list[Failure]:
        """Raises NetlinkError if links cannot even be listed."""
        failures = []
        for link in unwanted:
            found = self._links().get(link.name)
            if found is None:
                continue
            if _is_foreign(found.link, link):
                failures.append(Failure(link, other_type(found.link), foreign=True))
                continue
            try:
                self._kernel.request(links.delete(found.index))
            except NetlinkError as error:
                if error.number != errno.ENODEV:
                    failures.append(Failure(link, explain(link, error)))
        return failures

    def put(self, puts: Sequence[Put]) -> list[Failure]:
        """Raises NetlinkError if links cannot even be listed."""
        failures = []
        for put in puts:
            link = put.object
            assert isinstance(link, Link)
            existing = self._links()
            try:
                failure = self._put(link, put.previous is None, existing)
            except MissingDevice as error:
                failure = Failure(link, missing_device(str(error)))
            except NetlinkError as error:
                failure = Failure(link, explain(link, error))
            except (OSError, ValueError, struct.error) as error:
                failure = Failure(link, f"it cannot be written to the kernel: {error}")
            if failure is not None:
                failures.append(failure)
        return failures

    def _put(self, link: Link, new: bool, existing: Mapping[str, LinkRow]) -> Failure | None:
        """Raises NetlinkError, MissingDevice, and what packing raises."""
        found = existing.get(link.name)
        if found is not None and _is_foreign(found.link, link):
            return Failure(link, other_type(found.link), foreign=True)
        if found is not None and link.satisfied_by(found.link):
            return None
        if found is not None and new:
            return Failure(link, in_the_way(found.link), foreign=True)

        def index(name: str) -> int:
            if name not in existing:
                raise MissingDevice(name)
            return existing[name].index

        if found is not None and not link.must_be_remade(found.link):
            for request in links.change(link, found.link, found.index, index):
                self._kernel.request(request)
            return None
        holder = _holder_of_vni(link, existing)
        if holder is not None:
            return Failure(link, taken_vni(holder), foreign=True)
        if found is not None and link.mac is None:
            link = msgspec.structs.replace(link, mac=found.link.mac)
        creation = links.create(link, index)  # packed first: what cannot be made is no reason to delete
        if found is not None:
            self._kernel.request(links.delete(found.index))
        self._kernel.request(creation)
        return None

    def _links(self) -> dict[str, LinkRow]:
        found = self._kernel.dump(links.dump())
        names = link_names(found)
        return {row.name: row for row in (links.decode(message, names) for message in found)}


def _is_foreign(found: Link, link: Link) -> bool:
    """True for a device of another type than ours, or of one that nobody here makes."""
    return isinstance(found.info, OtherLink) or type(found.info) is not type(link.info)


def _holder_of_vni(link: Link, existing: Mapping[str, LinkRow]) -> str | None:
    """Another VXLAN device with this VNI and port: the kernel would refuse ours with EEXIST and not say which."""
    info = link.info
    if not isinstance(info, Vxlan):
        return None
    for name, row in existing.items():
        other = row.link.info
        if (
            isinstance(other, Vxlan)
            and name != link.name
            and (other.vni, other.port) == (info.vni, info.port)
            and (":" in other.local) == (":" in info.local)
        ):
            return name
    return None
