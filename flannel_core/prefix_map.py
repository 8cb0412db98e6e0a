"""Which networks overlap a given one, without looking at all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from .lease import IPNetwork
from .multimap import Multimap

T = TypeVar("T", bound=Hashable)


class PrefixMap(Generic[T]):
    """Items by network, of one family. Any number of items may have the same network.

    A lookup costs one dictionary access per prefix length in use; longer lengths than the one asked for cost as much
    as there are such networks or places for them, whichever is less. In a cluster all but a few have one length.
    """

    def __init__(self) -> None:
        self._tables: dict[int, Multimap[int, T]] = {}
        """Prefix length -> the network's leading bits as a number -> its items."""

    def add(self, network: IPNetwork, item: T) -> None:
        self._tables.setdefault(network.prefixlen, Multimap()).add(_bits(network), item)

    def remove(self, network: IPNetwork, item: T) -> None:
        """Raises KeyError if it is not there."""
        table = self._tables[network.prefixlen]
        table.remove(_bits(network), item)
        if not len(table):
            del self._tables[network.prefixlen]

    def overlapping(self, network: IPNetwork) -> Iterable[T]:
        """The items whose network contains ``network`` or lies in it, in no order."""
        if len(self._tables) == 1 and (table := self._tables.get(network.prefixlen)) is not None:
            return table.get(_bits(network))
        return self._of_several_lengths(network)

    def _of_several_lengths(self, network: IPNetwork) -> Iterator[T]:
        length, bits = network.prefixlen, _bits(network)
        for other, table in self._tables.items():
            gap = other - length
            if gap <= 0:
                yield from table.get(bits >> -gap)
            elif 1 << gap <= len(table):
                for inner in range(bits << gap, (bits + 1) << gap):
                    yield from table.get(inner)
            else:
                for inner, items in table.items():
                    if inner >> gap == bits:
                        yield from items


def _bits(network: IPNetwork) -> int:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
