"""What all nodes say, told as a store tells its leases: a change only where something was said otherwise. Pure."""

from __future__ import annotations

from collections.abc import Callable

from flannel_core.claim import says_the_same
from flannel_core.lease import Lease, Malformed
from flannel_core.store import Change, Snapshot

from .node_stream import Entry


class LeaseView:
    """Of one watcher. ``own`` is our lease as we wrote it last: a server's cache may be a little behind that."""

    def __init__(self, own: Callable[[], Lease | None]) -> None:
        self._own = own
        self._known: dict[str, Lease | Malformed] = {}
        self._listed: set[str] | None = None

    def begin(self) -> None:
        """A list begins."""
        self._listed = set()

    def take_in(self, entry: Entry[Lease | Malformed]) -> Change | None:
        """A node; what it changes among the leases. A kubelet writes into its node every few minutes, and that is none
        of our business."""
        name, value = entry.name, entry.value
        own = self._own()
        if own is not None and own.key == name and 0 < entry.revision < own.revision:
            value = own
        known = self._known.get(name)
        if value is None:
            if known is None:
                return None
            del self._known[name]
            return Change(name, None, entry.revision)
        if self._listed is not None:
            self._listed.add(name)
        if known is not None and _same(known, value):
            return None
        self._known[name] = value
        return Change(name, value, entry.revision)

    def end(self, revision: int) -> Snapshot:
        """The list is whole: all leases there are."""
        if self._listed is not None:
            for name in self._known.keys() - self._listed:
                del self._known[name]
        self._listed = None
        leases = tuple(entry for entry in self._known.values() if isinstance(entry, Lease))
        malformed = tuple(entry for entry in self._known.values() if isinstance(entry, Malformed))
        return Snapshot(leases, malformed, revision)


def _same(one: Lease | Malformed, other: Lease | Malformed) -> bool:
    if isinstance(one, Lease) and isinstance(other, Lease):
        return one.created == other.created and says_the_same(one, other)
    return isinstance(one, Malformed) and isinstance(other, Malformed) and one.reason == other.reason
