"""Names of devices by index, as link dumps and link notifications tell them."""

from __future__ import annotations

from collections.abc import Iterable
from errno import ENODEV

from . import links
from .links import MissingDevice
from .message import Message
from .neighbours import AF_BRIDGE
from .socket import NetlinkError, NetlinkSocket


def link_names(dump: Iterable[Message]) -> dict[int, str]:
    """Names by index."""
    return {index: name for _, index, name in map(links.decode_name, dump)}


def follow(names: dict[int, str], message: Message) -> set[str]:
    """Keep ``names`` in step with an RTM_NEWLINK or RTM_DELLINK. Returns the names that this link had and has.
    Raises MalformedMessage."""
    family, index, name = links.decode_name(message)
    if family == AF_BRIDGE:  # a port of a bridge changed, not the link
        return set()
    concerned = {name}
    if index in names:
        concerned.add(names[index])
    if message.type == links.RTM_NEWLINK:
        names[index] = name
    else:
        names.pop(index, None)
    return concerned


class Indexes:
    """Asks the kernel for a device's index, once per name: right at this moment, where a map kept from notifications
    could name a device that was made again meanwhile."""

    def __init__(self, kernel: NetlinkSocket) -> None:
        self._kernel = kernel
        self._known: dict[str, int | None] = {}

    def __call__(self, name: str) -> int:
        """Raises MissingDevice."""
        if name not in self._known:
            self._known[name] = self._ask(name)
        index = self._known[name]
        if index is None:
            raise MissingDevice(name)
        return index

    def _ask(self, name: str) -> int | None:
        try:
            return links.decode_name(self._kernel.get(links.get(name)))[1]
        except NetlinkError as error:
            if error.number != ENODEV:
                raise
            return None
