"""Which lease this host held last, kept beside subnet.env: a host that comes back with another address finds its
lease by the store's key and create revision."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from .state_file import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "lease.json"


class RememberedLease(msgspec.Struct, frozen=True):
    """``location`` and ``cluster`` name the store it belongs to; in another store the same key means nothing."""

    location: str
    cluster: str
    key: str
    created: int


def load(directory: Path) -> RememberedLease | None:
    """None if there is none or it cannot be read, which is logged: the lease is then looked for by address."""
    path = directory / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=RememberedLease)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("%s is not readable (%s); looking for our lease by address", path, error)
        return None


def save(directory: Path, remembered: RememberedLease) -> None:
    """Raises OSError."""
    write_atomically(directory / FILE_NAME, msgspec.json.encode(remembered), mode=0o600)
