"""What stands in the file: tables, triggers, the mark that it is ours, and how an older schema becomes this one."""

from __future__ import annotations

import secrets
import sqlite3
import time

APPLICATION_ID = 0x464C4E4C
"""``PRAGMA application_id``: "FLNL". What tells our file from a database of something else."""
CHANGES_KEPT = 10_000
"""How many of the last changes stand in the file. A watcher that fell behind them reads everything again."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE config (id INTEGER PRIMARY KEY CHECK (id = 1), text TEXT NOT NULL CHECK (typeof(text) = 'text'))",
        # value is the JSON that Go flannel would write to etcd; expires is Unix time, NULL is a reservation.
        # created and revision are set by the triggers.
        """CREATE TABLE leases (
            key TEXT PRIMARY KEY NOT NULL CHECK (typeof(key) = 'text'),
            value TEXT NOT NULL CHECK (typeof(value) = 'text'),
            created INTEGER NOT NULL DEFAULT 0 CHECK (typeof(created) = 'integer'),
            revision INTEGER NOT NULL DEFAULT 0 CHECK (typeof(revision) = 'integer'),
            expires REAL CHECK (typeof(expires) IN ('real', 'null'))
        ) WITHOUT ROWID""",
        "CREATE INDEX leases_by_expiry ON leases (expires) WHERE expires IS NOT NULL",
        # The watch. AUTOINCREMENT: a revision is never given twice, whatever is trimmed.
        """CREATE TABLE changes (
            revision INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('put', 'delete', 'config')),
            key TEXT
        )""",
        # Triggers write the changes, so that what an operator does with the sqlite3 command is heard as well.
        f"""CREATE TRIGGER changes_trimmed AFTER INSERT ON changes BEGIN
            DELETE FROM changes WHERE revision <= NEW.revision - {CHANGES_KEPT};
        END""",
        """CREATE TRIGGER lease_created AFTER INSERT ON leases BEGIN
            INSERT INTO changes (kind, key) VALUES ('put', NEW.key);
            UPDATE leases SET (created, revision) = (SELECT max(revision), max(revision) FROM changes)
                WHERE key = NEW.key;
        END""",
        """CREATE TRIGGER lease_changed AFTER UPDATE OF value, expires ON leases BEGIN
            INSERT INTO changes (kind, key) VALUES ('put', NEW.key);
            UPDATE leases SET revision = (SELECT max(revision) FROM changes) WHERE key = NEW.key;
        END""",
        """CREATE TRIGGER lease_renamed BEFORE UPDATE OF key ON leases BEGIN
            SELECT RAISE(ABORT, 'the key of a lease does not change: delete it and insert another');
        END""",
        """CREATE TRIGGER lease_deleted AFTER DELETE ON leases BEGIN
            INSERT INTO changes (kind, key) VALUES ('delete', OLD.key);
        END""",
        *(
            f"CREATE TRIGGER config_{verb.lower()} AFTER {verb} ON config BEGIN "
            f"INSERT INTO changes (kind) VALUES ('config'); END"
            for verb in ("INSERT", "UPDATE", "DELETE")
        ),
    ),
)
"""The statements that lead from one ``PRAGMA user_version`` to the next. Steps are added, never edited."""

SCHEMA_VERSION = len(MIGRATIONS)


class NotOurs(Exception):
    """The file is an SQLite database, but of something else."""


class NewerSchema(Exception):
    """A later release wrote the file. ``version`` is its schema."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version, 0: the file is empty. Only reads. Raises NotOurs and NewerSchema."""
    if connection.in_transaction:
        return _version_of(connection)
    # One view: between two reads another agent may fill the file, and an empty one that has tables is somebody else's.
    connection.execute("BEGIN")
    try:
        return _version_of(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version_of(connection: sqlite3.Connection) -> int:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application_id or version or objects:
            raise NotOurs
    if version > SCHEMA_VERSION:
        raise NewerSchema(version)
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file up to SCHEMA_VERSION. Runs inside a write transaction; does nothing if another was faster."""
    version = version_of(connection)
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    if version == 0:
        connection.execute("INSERT INTO meta VALUES ('cluster', ?)", (secrets.token_hex(8),))
        # Revisions count from the time of creation, so that a lease remembered from an earlier file at this path is
        # never mistaken for one in this file.
        connection.execute("INSERT INTO sqlite_sequence VALUES ('changes', ?)", (time.time_ns() // 1_000_000,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
