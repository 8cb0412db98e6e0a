"""A dictionary with any number of items per key, made for keys that nearly all have one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class Multimap(Generic[K, T]):
    """A key's only item stands in the dictionary itself: a set for each would cost 216 bytes per key. Items are neither
    sets nor None."""

    def __init__(self) -> None:
        self._items: dict[K, T | set[T]] = {}

    def __len__(self) -> int:
        """How many keys have an item."""
        return len(self._items)

    def add(self, key: K, item: T) -> None:
        there = self._items.get(key)
        if there is None:
            self._items[key] = item
        elif isinstance(there, set):
            there.add(item)
        elif there != item:
            self._items[key] = {there, item}

    def remove(self, key: K, item: T) -> None:
        """Raises KeyError if it is not there."""
        there = self._items[key]
        if isinstance(there, set):
            there.remove(item)
            if len(there) == 1:
                self._items[key] = there.pop()
        elif there == item:
            del self._items[key]
        else:
            raise KeyError(key)

    def get(self, key: K) -> Iterable[T]:
        """A key's items, in no order."""
        there = self._items.get(key)
        if there is None:
            return ()
        return there if isinstance(there, set) else (there,)

    def items(self) -> Iterator[tuple[K, Iterable[T]]]:
        for key, there in self._items.items():
            yield key, there if isinstance(there, set) else (there,)
