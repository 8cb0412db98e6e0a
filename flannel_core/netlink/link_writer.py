"""Writing links. They are few: one at a time, each looked at right before it is touched."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ..objects import Ipip, Link, LinkInfo, OtherLink, Tun, Vxlan
from ..target import Failure, Put
from . import links, tun
from .devices import link_names
from .links import LinkRow, MissingDevice
from .reasons import explain, in_the_way, missing_device, other_type, taken_tunnel, taken_vni
from .socket import NetlinkError, NetlinkSocket


class LinkWriter:
    """Makes, changes and removes links; a device of our name but of another type is never touched.

    ``is_left_over`` tells of a device by its name whether it is ours and nothing wants it any more: it goes where it is
    in the way of one that is wanted, since that one would have to wait for the first Snapshot.
    """

    def __init__(self, kernel: NetlinkSocket, is_left_over: Callable[[str], bool]) -> None:
        self._kernel = kernel
        self._is_left_over = is_left_over

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
            except tun.TunError as error:
                failure = Failure(link, str(error))
            except (OSError, ValueError, struct.error) as error:
                failure = Failure(link, f"it cannot be written to the kernel: {error}")
            if failure is not None:
                failures.append(failure)
        return failures

    def _put(self, link: Link, new: bool, existing: Mapping[str, LinkRow]) -> Failure | None:
        """Raises NetlinkError, MissingDevice, TunError, and what packing raises."""
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

        for holder, reason in _in_the_way_of(link, existing):
            if not self._is_left_over(holder):
                return Failure(link, reason, foreign=True)
            self._kernel.request(links.delete(existing[holder].index))
        if found is not None and not link.must_be_remade(found.link):
            self._change(link, found, index)
            return None
        if isinstance(link.info, Tun):
            if found is not None:
                self._kernel.request(links.delete(found.index))
            tun.make(link.name, link.info.owner)
            made = self._links().get(link.name)
            if made is None:
                raise MissingDevice(link.name)
            self._change(link, made, index)
            return None
        if found is not None and link.mac is None:
            link = msgspec.structs.replace(link, mac=found.link.mac)
        creation = links.create(link, index)  # packed first: what cannot be made is no reason to delete
        if found is not None:
            self._kernel.request(links.delete(found.index))
        self._kernel.request(creation)
        return None

    def _change(self, link: Link, found: LinkRow, indexes: Callable[[str], int]) -> None:
        for request in links.change(link, found.link, found.index, indexes):
            self._kernel.request(request)

    def _links(self) -> dict[str, LinkRow]:
        found = self._kernel.dump(links.dump())
        names = link_names(found)
        return {row.name: row for row in (links.decode(message, names) for message in found)}


def _is_foreign(found: Link, link: Link) -> bool:
    """True for a device of another type than ours, or of one that nobody here makes."""
    return isinstance(found.info, OtherLink) or type(found.info) is not type(link.info)


def _in_the_way_of(link: Link, existing: Mapping[str, LinkRow]) -> Iterator[tuple[str, str]]:
    """Other devices, and what is to be said of each: the kernel would refuse ours with EEXIST and not say which."""
    for name, row in existing.items():
        if name == link.name:
            continue
        if _same_vni(link.info, row.link.info):
            yield name, taken_vni(name)
        elif _same_ends(link.info, row.link.info):
            yield name, taken_tunnel(name)


def _same_vni(info: LinkInfo, other: LinkInfo) -> bool:
    return (
        isinstance(info, Vxlan)
        and isinstance(other, Vxlan)
        and (other.vni, other.port) == (info.vni, info.port)
        and (":" in other.local) == (":" in info.local)
    )


def _same_ends(info: LinkInfo, other: LinkInfo) -> bool:
    return (
        isinstance(info, Ipip) and isinstance(other, Ipip) and (info.local, info.remote) == (other.local, other.remote)
    )
