"""net-conf.json in a file of its own (--net-config-path), read again when it changes."""

from __future__ import annotations

import os
from pathlib import Path

from .store import ConfigText

MAX_BYTES = 1 << 20
"""A net-conf.json has a few hundred bytes."""


class ConfigFile:
    """The file at ``path``, of which no more than what changed is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._text = ConfigText(None, str(path))

    def read(self) -> ConfigText:
        """What stands there. Without a file that can be read, text None and the reason in ``source``; never raises."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen != self._seen:
                self._text = self._read()
                self._seen = seen
        except OSError as error:
            self._seen = None
            self._text = self._missing(os.strerror(error.errno or 0).lower())
        return self._text

    def _read(self) -> ConfigText:
        if not self._path.is_file():
            return self._missing("not a file")
        with self._path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            return self._missing(f"longer than {MAX_BYTES} bytes")
        return ConfigText(text, str(self._path))

    def _missing(self, reason: str) -> ConfigText:
        return ConfigText(None, f"{self._path} ({reason})")
