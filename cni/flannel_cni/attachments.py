"""What the plugin remembers of each container: the configuration that its delegate got, for the day it is taken away.

A file of ``dataDir`` is called ``CONTAINER:NETWORK:INTERFACE``; none of the three can hold a colon. Go's plugin knows
one file a container, called ``CONTAINER``. That name is a symbolic link to ours, so that Go's plugin finds its way when
a host goes back to it; and where Go's plugin has left a file, it counts as ours if it is of our network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flannel_core.state_file import write_atomically

from .protocol import decode

GO_INTERFACE = "eth0"
"""What Go's plugin does not note down: the interface that runtimes give a container first."""


class Attachment(NamedTuple):
    """One container's place in the network, as it was noted down in ``path``."""

    container: str
    interface: str
    path: Path
    config: bytes


class Attachments:
    """Those of one ``network``. Every method raises OSError."""

    def __init__(self, directory: Path, network: str) -> None:
        self._directory = directory
        self._network = network

    def keep(self, container: str, interface: str, config: bytes) -> Attachment:
        """Note down; on the disk when it returns."""
        own = self._own(container, interface)
        write_atomically(own, config, 0o600, 0o700)
        go = self._directory / container
        if _network(_read(go)) in (self._network, None):
            temporary = self._directory / f".{container}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(own.name)
            temporary.replace(go)
        return Attachment(container, interface, own, config)

    def find(self, container: str, interface: str) -> Attachment | None:
        """What is noted down of it, by us or by Go's plugin; None: nothing."""
        own, go = self._own(container, interface), self._directory / container
        if (config := _read(own)) is not None:
            return Attachment(container, interface, own, config)
        if not go.is_symlink() and (config := _read(go)) is not None and _network(config) in (self._network, None):
            return Attachment(container, interface, go, config)
        return None

    def forget(self, attachment: Attachment) -> None:
        """Remove the file, and the name that Go's plugin would have found it by."""
        go = self._directory / attachment.container
        if go.is_symlink() and go.readlink().name == attachment.path.name:
            go.unlink(missing_ok=True)
        attachment.path.unlink(missing_ok=True)

    def all(self) -> Iterator[Attachment]:
        """Every one of this network."""
        for path in sorted(self._directory.glob("[!.]*")):
            if path.is_symlink() or not path.is_file() or (config := _read(path)) is None:
                continue
            container, *rest = path.name.split(":")
            if len(rest) == 2 and rest[0] == self._network:
                yield Attachment(container, rest[1], path, config)
            elif not rest and _network(config) == self._network:
                yield Attachment(container, GO_INTERFACE, path, config)

    def _own(self, container: str, interface: str) -> Path:
        return self._directory / f"{container}:{self._network}:{interface}"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _network(config: bytes | None) -> str | None:
    """Whose configuration it is; None if that cannot be told."""
    if config is None:
        return None
    try:
        return str(decode(config)["name"])
    except (ValueError, KeyError):
        return None
