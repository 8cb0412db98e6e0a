"""Files that survive a crash whole: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_atomically(
    path: Path,
    data: bytes | Iterable[bytes],
    mode: int = 0o644,
    directory_mode: int = 0o755,
    modified: float | None = None,
) -> None:
    """Put ``data``, or all of its parts, at ``path`` with exactly ``mode`` whatever the umask; the directory is made if
    it is missing. ``modified`` is the time of modification it gets, in Unix time: now if it is None.

    A reader sees the old content or the new, never a part. Raises OSError (disk full, read-only) with the old file
    untouched and the temporary one gone.
    """
    path.parent.mkdir(mode=directory_mode, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            if modified is not None:
                os.utime(file.fileno(), (modified, modified))
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
