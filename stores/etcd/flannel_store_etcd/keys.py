"""Where flannel's keys lie in etcd, spelt as Go flannel spells them. Pure."""

from __future__ import annotations

import os
import posixpath

from flannel_core.printable import printable

from .rpc import prefix_end


class Keys:
    """The keys under ``prefix``, which may be any text: it is joined as Go's path.Join does, so doubled and trailing
    slashes vanish, and a missing leading slash stays missing."""

    def __init__(self, prefix: str) -> None:
        self.prefix = printable(posixpath.dirname(_join(prefix, "config")), 200)
        """For a person."""
        self.config = os.fsencode(_join(prefix, "config"))
        self.subnets = os.fsencode(_join(prefix, "subnets")) + b"/"
        self.subnets_end = prefix_end(self.subnets)

    def lease(self, name: str) -> bytes:
        """Where the lease ``name`` (``10.5.43.0-24``) lies."""
        return self.subnets + name.encode()

    def name(self, key: bytes) -> str:
        """The lease's name; what is not UTF-8 in it is escaped."""
        return key[len(self.subnets) :].decode("utf-8", "backslashreplace")


def shown(key: bytes) -> str:
    """A key for a person."""
    return printable(key, 200)


def _join(prefix: str, name: str) -> str:
    path = posixpath.normpath(f"{prefix}/{name}" if prefix else name)
    return path[1:] if path.startswith("//") else path  # POSIX keeps two leading slashes apart from one
