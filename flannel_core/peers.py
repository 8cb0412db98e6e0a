"""Leases in, wishes out: what the store tells goes through admission and the backend's ``peer`` to the reconciler.

A peer wants its objects under the key of its lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from .admission import Admission, Delta
from .backend import Backend, Node, Unreachable
from .lease import Lease, Malformed
from .objects import Object
from .reconciler.engine import Reconciler
from .reconciler.lanes import Lanes
from .store import Change, Snapshot

log = logging.getLogger(__name__)

LOGGED_AT_ONCE = 10
"""Lines: a store full of another backend's leases must not fill the log."""


class LeaseCause(msgspec.Struct, frozen=True, gc=False):
    """Why a peer's objects are wanted, put into words only when somebody asks."""

    key: str
    revision: int

    def __str__(self) -> str:
        return f"lease {self.key} revision {self.revision}"


class Peers:
    """The peers of one node. Whether the reconciler may remove anything (``pruning``) is decided here alone."""

    def __init__(
        self,
        node: Node,
        backend: Backend[Any, Any],
        reconciler: Reconciler | Lanes,
        *,
        known_cluster: str = "",
        hold_off: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``hold_off``: for how many seconds nothing is removed after the store came back as another one (restored from
        a backup, rebuilt): hosts then need time to write their leases again, and a route to a host that is about to
        return must not be lost meanwhile."""
        self.admission = Admission(node.config, backend, node.lease)
        self.unreachable: dict[str, tuple[str, ...]] = {}
        """Lease key -> why the backend cannot serve that peer, or one of its families."""
        self.cluster = known_cluster
        self.revision = 0
        self.listed = False
        """True once the store's full list was seen."""
        self.hold: str | None = None
        """Why nothing is removed at present; None when it is."""
        self._node = node
        self._backend = backend
        self._reconciler = reconciler
        self._hold_off = hold_off
        self._clock = clock
        self._hold_until: float | None = None
        self._own_listed = False

    @property
    def leases(self) -> list[Lease]:
        """Everybody's, as the store has them, but for our own."""
        own = self._node.lease
        return [e for e in self.admission.entries if isinstance(e, Lease) and (own is None or e.key != own.key)]

    def stand_in(self, leases: Iterable[Lease], revision: int) -> None:
        """What an earlier run has heard, as long as the store is away: peers, and a reason to remove nobody."""
        self.revision = revision
        self._apply(self.admission.replace(leases))

    def snapshot(self, snapshot: Snapshot) -> None:
        """The store's full list: peers that are not in it go, if it can be trusted."""
        own = self._node.lease
        self._own_listed = own is not None and any(lease.key == own.key for lease in snapshot.leases)
        restored = bool(self.cluster) and snapshot.cluster != self.cluster
        restored = restored or snapshot.revision < self.revision
        self.cluster, self.revision = snapshot.cluster, snapshot.revision
        if restored:
            self._distrust("the store came back with other contents")
        elif not self._own_listed:
            self._distrust("the store does not list our lease")
        self._apply(self.admission.replace(snapshot.leases, snapshot.malformed))
        self.listed = True
        self.release_hold()

    def heard_again(self, silence: float) -> None:
        """The store answers after so many seconds. If they were many, leases of running hosts may have run out."""
        if silence > self._hold_off:
            self._distrust(f"the store was silent for {silence:.0f} s")

    def _distrust(self, reason: str) -> None:
        self._hold_until = self._clock() + self._hold_off
        self.hold = reason
        self._reconciler.pruning = False
        log.warning("Removing nothing for now: %s", reason)

    def change(self, change: Change) -> None:
        """One entry changed. Before the first full list, nothing is taken away."""
        if change.entry is None and not self.listed:
            return
        self.revision = max(self.revision, change.revision)
        own = self._node.lease
        if own is not None and change.key == own.key:
            self._own_listed = isinstance(change.entry, Lease)
        self._apply(self.admission.update(change.key, change.entry))

    def release_hold(self) -> None:
        """Let removals happen (again) once our own lease is listed and the hold-off has passed."""
        if not self.listed or not self._own_listed:
            return
        if self._hold_until is not None and self._clock() < self._hold_until:
            return
        self._hold_until = self.hold = None
        if not self._reconciler.pruning:
            self._reconciler.pruning = True

    def plan(self, node: Node, backend: Backend[Any, Any]) -> None:
        """This host is ``node`` now, and forwards by ``backend``: ask about every peer again. For another configuration
        every entry is judged anew as well."""
        same = node.config == self._node.config and backend is self._backend
        self._node, self._backend = node, backend
        if same:
            self._apply(self.admission.set_own(node.lease))
        else:
            self._judge_anew()
        for key, lease in self.admission.admitted.items():
            self._want(key, lease)

    def _judge_anew(self) -> None:
        before = self.admission
        self.admission = Admission(self._node.config, self._backend, self._node.lease)
        entries = before.entries
        self.admission.replace(
            [entry for entry in entries if isinstance(entry, Lease)],
            [entry for entry in entries if isinstance(entry, Malformed)],
        )
        for key in before.admitted.keys() - self.admission.admitted.keys():
            self._drop(key)

    def _apply(self, delta: Delta) -> None:
        for number, refused in enumerate(delta.refused.values()):
            if number == LOGGED_AT_ONCE:
                log.warning("%d more leases are refused; the status names them", len(delta.refused) - number)
                break
            log.warning("Lease %s is refused: %s", refused.key, refused.reason)
        for key in delta.withdrawn:
            self._drop(key)
        for key, lease in delta.admitted.items():
            self._want(key, lease)

    def _drop(self, key: str) -> None:
        self.unreachable.pop(key, None)
        self._reconciler.unwant(key)

    def _want(self, key: str, lease: Lease) -> None:
        wanted: list[Object] = []
        reasons: list[str] = []
        for item in self._backend.peer(self._node, lease):
            if isinstance(item, Unreachable):
                reasons.append(item.reason)
            else:
                wanted.append(item)
        if reasons:
            self.unreachable[key] = tuple(reasons)
        else:
            self.unreachable.pop(key, None)
        self._reconciler.want(key, wanted, LeaseCause(key, lease.revision))
