"""The rows of the file as leases, and as what changed since a revision. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.lease import Lease, Malformed
from flannel_core.lease_json import decode_lease, encode_lease
from flannel_core.store import Change, Snapshot

_COLUMNS = "SELECT key, value, created, revision, expires FROM leases"


class Row(NamedTuple):
    """A row of the table ``leases``, text as the bytes that stand there."""

    key: bytes
    value: bytes
    created: int
    revision: int
    expires: float | None

    @property
    def entry(self) -> Lease | Malformed:
        return decode_lease(
            _text(self.key), self.value, created=self.created, revision=self.revision, expires=self.expires
        )


Written = tuple[bytes, int]
"""The key and revision of a row: one write of it."""


class Position(msgspec.Struct, frozen=True):
    """Up to where a watcher has read: the file's cluster id, "" while there is no file, and the revision."""

    cluster: str = ""
    revision: int = 0


def entries(connection: sqlite3.Connection | None) -> tuple[list[Lease], list[Malformed]]:
    """Everything that stands there, by key, expired leases too."""
    if connection is None:
        return [], []
    found = [Row(*row).entry for row in connection.execute(f"{_COLUMNS} ORDER BY key")]
    return [e for e in found if isinstance(e, Lease)], [e for e in found if isinstance(e, Malformed)]


def find(connection: sqlite3.Connection | None, key: bytes) -> Row | None:
    if connection is None:
        return None
    row = connection.execute(f"{_COLUMNS} WHERE key = CAST(? AS TEXT)", (key,)).fetchone()
    return None if row is None else Row(*row)


def put(connection: sqlite3.Connection, lease: Lease) -> Lease:
    """Write ``lease`` under its key, whatever stands there, and return what stands there now: a new row gets its
    ``created``, an old one keeps it. Raises FlannelError for one that no flannel could read back."""
    try:
        value = encode_lease(lease)
    except ValueError as error:
        raise FlannelError(f"the lease {lease.key} of this host cannot be written: {error}") from None
    key = lease.key.encode()
    connection.execute(
        "INSERT INTO leases (key, value, expires) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
        (key, value, lease.expires),
    )
    row = find(connection, key)
    assert row is not None
    written = row.entry
    assert isinstance(written, Lease)
    return written


def delete(connection: sqlite3.Connection, written: Iterable[Written]) -> None:
    """Delete rows, each only if it still is what was written then."""
    connection.executemany("DELETE FROM leases WHERE key = CAST(? AS TEXT) AND revision = ?", list(written))


def expired(connection: sqlite3.Connection | None, now: float) -> set[Written]:
    """The leases that have run out. Reads nothing but them (there is an index)."""
    if connection is None:
        return set()
    return set(connection.execute("SELECT key, revision FROM leases WHERE expires <= ?", (now,)))


def config(connection: sqlite3.Connection | None) -> bytes | None:
    """net-conf.json; None: there is none yet."""
    row = None if connection is None else connection.execute("SELECT text FROM config").fetchone()
    return None if row is None else row[0]


def put_config(connection: sqlite3.Connection, text: bytes) -> None:
    connection.execute(
        "INSERT INTO config VALUES (1, CAST(? AS TEXT)) ON CONFLICT (id) DO UPDATE SET text = excluded.text", (text,)
    )


def position(connection: sqlite3.Connection | None) -> Position:
    """Where the file stands now."""
    if connection is None:
        return Position()
    (cluster,) = connection.execute("SELECT value FROM meta WHERE name = 'cluster'").fetchone()
    (revision,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return Position(_text(cluster), revision)


def snapshot(connection: sqlite3.Connection | None, now: float) -> Snapshot:
    """Every lease that has not run out at ``now``."""
    leases, malformed = entries(connection)
    here = position(connection)
    return Snapshot(
        tuple(lease for lease in leases if is_alive(lease, now)), tuple(malformed), here.revision, here.cluster
    )


def since(
    connection: sqlite3.Connection | None, seen: Position | None, now: float
) -> tuple[Position, list[Snapshot | Change]]:
    """Where the file stands, and what changed after ``seen``: at most one Change per key, with what stands there now.

    A Snapshot instead for a watcher that has seen nothing yet, whose changes were trimmed already, or who finds
    another file or an older state of it (a restored backup).
    """
    here = position(connection)
    if here == seen:
        return here, []
    if connection is None or seen is None or here.cluster != seen.cluster or _has_a_gap(connection, seen, here):
        return here, [snapshot(connection, now)]
    changed = connection.execute(
        "SELECT key, max(revision) FROM changes WHERE revision > ? AND kind <> 'config' GROUP BY key ORDER BY 2",
        (seen.revision,),
    ).fetchall()
    return here, [_change(connection, key, revision, now) for key, revision in changed]


def _has_a_gap(connection: sqlite3.Connection, seen: Position, here: Position) -> bool:
    (oldest,) = connection.execute("SELECT min(revision) FROM changes").fetchone()
    return here.revision < seen.revision or oldest is None or oldest > seen.revision + 1


def _change(connection: sqlite3.Connection, key: bytes, revision: int, now: float) -> Change:
    row = find(connection, key)
    entry = None if row is None else row.entry
    if isinstance(entry, Lease) and not is_alive(entry, now):
        entry = None
    return Change(_text(key), entry, revision)


def is_alive(lease: Lease, now: float) -> bool:
    return lease.expires is None or lease.expires > now


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")  # a person may have written a key that is not UTF-8
