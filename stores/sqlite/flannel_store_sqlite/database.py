"""The file: opened, watched for being written by others or replaced, and every failure of it put in words.

Everything here blocks and belongs to one thread.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from flannel_core.store import StoreError, StoreUnavailable

from . import schema

CACHE_KIB = 256
"""All leases are read once and from then on only what changed: a larger page cache is memory that is never used."""
BUSY_SECONDS = 0.1
"""How long SQLite itself waits for another process's lock. Short, because whoever waits next waits for this thread."""
GONE_SECONDS = 5.0
"""For how long a file that vanished is waited for (an operator copies a backup into place) before it is taken as an
empty store."""

Identity = tuple[int, int]
"""Device and inode of the file."""


class Busy(StoreUnavailable):
    """Another process holds the lock; worth another try at once."""


class Database:
    """``dry_run``: nothing is ever written, the file not even made."""

    def __init__(self, path: Path, dry_run: bool) -> None:
        self.path = path
        self.dry_run = dry_run
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._data_version = 0
        self._gone_since: float | None = None

    def close(self) -> None:
        """The last process to close leaves the file alone, without -wal and -shm beside it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def check(self) -> None:
        """Raises StoreError if the file is there and not ours to use."""
        with self._explained():
            self._connect(create=False)

    def changed(self) -> bool:
        """Whether another process wrote, or another file stands at the path, since the last call. Costs a stat and
        3 us. This connection's own commits do not count (SQLite's data_version leaves them out)."""
        with self._explained():
            before = self._connection
            connection = self._connect(create=False)
            if connection is None or connection is not before:
                return connection is not before
            noted = self._data_version
            self._note_data_version(connection)
            return self._data_version != noted

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """One consistent view of the file. None: there is no file yet."""
        with self._explained():
            connection = self._connect(create=False)
            if connection is None:
                yield None
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside; the file is made if there is none. Once it is left, what was
        written survives a power cut; left by an exception, nothing was written."""
        with self._explained():
            if self.dry_run:
                raise StoreError(f"{self.path}: nothing is written in a dry run")
            connection = self._connect(create=True)
            assert connection is not None
            with _transaction(connection):
                yield connection
            self._empty_the_log(connection)

    def _empty_the_log(self, connection: sqlite3.Connection) -> None:
        """Move what was committed from FILE-wal into FILE. Costs 0.4 ms a write, of which there are a handful a day per
        host; it makes FILE alone the whole store, so that a plain copy is a backup and a plain ``mv`` restores it."""
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            pass  # it is committed; the next write moves it

    # --- opening ---------------------------------------------------------------------------------------------------

    def _connect(self, create: bool) -> sqlite3.Connection | None:
        identity = self._look()
        if self._connection is not None:
            if identity == self._identity:
                self._gone_since = None
                return self._connection
            if identity is None:
                self._wait_for_its_return()
            self.close()
        self._gone_since = None
        if identity is None:
            if not create:
                return None
            self._make()
        self._may_be_used()
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            if not self._prepare(connection, create):
                connection.close()
                return None
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, self._look()
        self._note_data_version(connection)
        return connection

    def _prepare(self, connection: sqlite3.Connection, create: bool) -> bool:
        """False: the file is empty still. Reads only until it is clear that the file is ours."""
        connection.text_factory = bytes  # a person may have written what is not UTF-8
        version = schema.version_of(connection)
        if version < schema.SCHEMA_VERSION and (self.dry_run or (version == 0 and not create)):
            return False
        if self.dry_run:
            return True
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != b"wal":
            raise StoreError(f"{self.path}: its file system cannot share memory between processes; choose a local one")
        # FULL: a commit is on disk before it is answered. NORMAL would survive kill -9 as well, but a power cut could
        # take back a lease whose subnet is in use already, and give it to another host.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if version < schema.SCHEMA_VERSION:
            with _transaction(connection):
                schema.migrate(connection)
        return True

    def _note_data_version(self, connection: sqlite3.Connection) -> None:
        noted = self._data_version
        (self._data_version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._data_version != noted:
            schema.version_of(connection)  # a later release may have migrated it under us

    def _look(self) -> Identity | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{self.path} is not a file; give another path with --sqlite-file")
        return found.st_dev, found.st_ino

    def _wait_for_its_return(self) -> None:
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        if now < self._gone_since + GONE_SECONDS:
            raise StoreUnavailable(
                f"{self.path} is gone; if it is not back within {GONE_SECONDS:.0f} s the hosts take their subnets anew"
            )

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite would make it readable for all, and the configuration may hold a key. No open(): the close() of any
        # descriptor of the file drops the locks that another connection of this process holds on it.
        try:
            os.mknod(self.path, stat.S_IFREG | 0o600)
        except FileExistsError:
            pass  # another agent was faster

    def _may_be_used(self) -> None:
        """SQLite would open what it may not write, and fail at the first lease."""
        wanted = os.R_OK if self.dry_run else os.R_OK | os.W_OK
        for path in (self.path, self.path.parent):
            if not os.access(path, wanted, effective_ids=True):
                raise StoreError(self._no_access(path))

    def _no_access(self, path: Path) -> str:
        for place in (path, *path.parents):
            try:
                read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY) and not self.dry_run
            except OSError:
                continue  # it is not there, or in a directory that is closed to us
            if read_only:
                return f"{path} is on a read-only file system; mount it read-write or choose a file with --sqlite-file"
            break
        return (
            f"{place} may not be read and written by user {os.geteuid()}; run as root, or give that user the file and "
            f"its directory"
        )

    # --- failures --------------------------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite and the system raise into StoreError, StoreUnavailable and Busy."""
        try:
            yield
        except schema.NotOurs:
            raise StoreError(
                f"{self.path} is an SQLite database of something else; choose another file with --sqlite-file"
            ) from None
        except schema.NewerSchema as newer:
            raise StoreError(
                f"{self.path} has schema version {newer.version}, this flannel-store-sqlite knows up to "
                f"{schema.SCHEMA_VERSION}; upgrade it on this host"
            ) from None
        except OSError as error:
            raise self._system_failure(error) from None
        except sqlite3.Error as error:
            raise self._sqlite_failure(error) from None

    def _system_failure(self, error: OSError) -> StoreError | StoreUnavailable:
        path = error.filename or self.path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StoreError(self._no_access(Path(path)))
        reason = os.strerror(error.errno or 0).lower()
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG):
            return StoreError(f"{path}: {reason}; choose another file with --sqlite-file")
        return StoreUnavailable(f"{path}: {reason}")

    def _sqlite_failure(self, error: sqlite3.Error) -> StoreError | StoreUnavailable:
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Busy(f"{self.path} is locked by another process; `fuser -v {self.path}` names who has it open")
            case sqlite3.SQLITE_FULL:
                return self._full()
            case sqlite3.SQLITE_NOTADB:
                self.close()
                return StoreError(f"{self.path} is not an SQLite database; choose another file with --sqlite-file")
            case sqlite3.SQLITE_CORRUPT:
                self.close()
                return StoreError(
                    f"{self.path} is damaged ({error}); stop the agents and restore a backup, or move it away and they "
                    f"make a new one and take their subnets again"
                )
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return StoreUnavailable(self._no_access(self.path))
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN if self._has_no_space():
                return self._full()
            case sqlite3.SQLITE_IOERR:
                return StoreUnavailable(f"{self.path}: {error}; the kernel's log says what its disk has")
            case _:
                return StoreUnavailable(f"{self.path}: {error}")

    def _has_no_space(self) -> bool:
        space = os.statvfs(self.path.parent)
        return space.f_bavail * space.f_frsize < 65536 or (space.f_files > 0 and space.f_favail == 0)

    def _full(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.path}: no space is left on its file system; nothing was written; free some in {self.path.parent}"
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
