"""The files of the state directory that are ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import journal, remembered_lease, snapshot_file
from ..lock import LOCK_FILE
from ..plugins import PluginBroken, load_backend, names

SOCKET = "flanneld.sock"
RECORD = "owned.json"


def state_files(subnet_file: Path, *, is_recorded: bool) -> list[Path]:
    """Those that exist, in the order in which they are to be removed: the record and the lock last. ``subnet_file`` is
    ours only if there was a record; else a Go flannel may have written it."""
    ours = [remembered_lease.FILE_NAME, snapshot_file.FILE_NAME, journal.NAME, journal.OLDER, SOCKET, *_of_backends()]
    last = [*([subnet_file.name] if is_recorded else []), RECORD, LOCK_FILE]
    directory = subnet_file.parent
    found = [directory / name for name in ours]
    found += [path for path in _listed(directory) if _is_remnant(path.name, {*ours, *last})]
    found += [directory / name for name in last]
    return [path for path in dict.fromkeys(found) if path.is_symlink() or path.exists()]


def remove(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yields what could not be removed, and why."""
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            yield path, error.strerror or str(error)


def _of_backends() -> Iterator[str]:
    for name in names("backend"):
        try:
            yield from load_backend(name).state_files
        except PluginBroken:
            continue


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _is_remnant(name: str, ours: set[str]) -> bool:
    """A file that was being written when the agent died (see ``state_file``), or a damaged record that was moved
    aside."""
    half_written = re.fullmatch(r"\.(.+)\.\d+", name)
    return bool(half_written and half_written[1] in ours) or bool(re.fullmatch(rf"{RECORD}\.corrupt-\d+", name))
