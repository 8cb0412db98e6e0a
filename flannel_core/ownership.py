"""What on this host is ours: written down before the first object is made, so that a later run can take it away.

Of a host whose record is lost only what carries our route protocol number inside the current Network, or has the name
of a current device, is known to be ours; the rest stays until somebody removes it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from .errors import FlannelError
from .state_file import write_atomically

log = logging.getLogger(__name__)

VERSION = 1


class Owned(msgspec.Struct, frozen=True):
    """``devices``: names of network devices we make. ``networks``: prefixes, as text, inside which routes with our
    protocol number are ours. ``external``: devices of others that carry routes of ours. ``records``: what the other
    targets put down (ports, cloud tables), by the target's name. ``backends``: the options, as JSON text, of the
    backends that brought these targets, by Backend.Type: whoever cleans up after them needs both."""

    devices: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    external: frozenset[str] = frozenset()
    records: dict[str, frozenset[str]] = {}
    backends: dict[str, str] = {}


class _Document(Owned, frozen=True):
    """The file. ``version`` comes with every one; a newer one is not guessed at."""

    version: int = VERSION


class OwnedFile:
    """``owned.json`` beside subnet.env. ``owned`` is its content; every change is on disk before the call returns.

    Raises FlannelError if the file cannot be read or was written by a newer flanneld. One that is damaged is moved
    aside, with a warning, and we go on without: routes still tell by their protocol number whose they are.
    """

    def __init__(self, path: Path, *, dry_run: bool = False) -> None:
        """``dry_run``: what is recorded counts, and is written nowhere."""
        self.path = path
        self._dry_run = dry_run
        self.owned = self._load()
        self._claimed = Owned()

    def record(
        self,
        devices: Iterable[str] = (),
        networks: Iterable[str] = (),
        external: Iterable[str] = (),
        records: Mapping[str, Iterable[str]] | None = None,
        backends: Mapping[str, str] | None = None,
    ) -> None:
        """Add these to what is ours; nothing is written if all of it was known. Raises FlannelError naming the file."""
        more = Owned(
            frozenset(devices),
            frozenset(networks),
            frozenset(external),
            {name: frozenset(items) for name, items in (records or {}).items()},
            dict(backends or {}),
        )
        self._save(_union(self.owned, more))
        self._claimed = _union(self._claimed, more)

    def forget_unclaimed(self, targets: Collection[str]) -> None:
        """Take out what only earlier runs recorded, at ``targets`` and in the kernel: nothing of it is left on this
        host. What other targets recorded stays, and so do the backends while there is any of it. Warns where the file
        cannot be written; it is tried again after the next full reading."""
        owned, claimed = self.owned, self._claimed
        records = {name: items for name, items in owned.records.items() if name not in targets}
        records = _union_of_sets(records, claimed.records)
        backends = owned.backends if records.keys() - claimed.records.keys() else claimed.backends
        left = Owned(claimed.devices, claimed.networks, claimed.external, records, backends)
        try:
            self._save(left)
        except FlannelError as error:
            log.warning("%s", error)

    def _save(self, owned: Owned) -> None:
        if owned == self.owned or self._dry_run:
            self.owned = owned
            return
        document = _Document(**{field: getattr(owned, field) for field in Owned.__struct_fields__})
        text = msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=1) + b"\n"
        try:
            write_atomically(self.path, text, mode=0o600)
        except OSError as error:
            raise FlannelError(
                f"{self.path}: what is ours cannot be recorded ({error.strerror or error}); make the directory writable"
                " and give it space, nothing is changed on this host without that record"
            ) from error
        self.owned = owned

    def _load(self) -> Owned:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Owned()
        except OSError as error:
            raise FlannelError(
                f"{self.path}: cannot be read ({error.strerror}); it records what flanneld made on this host: make it"
                " readable to flanneld, or move it away"
            ) from error
        try:
            document = msgspec.json.decode(text, type=_Document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._move_aside(str(error))
            return Owned()
        if document.version > VERSION:
            raise FlannelError(
                f"{self.path}: version {document.version} was written by a newer flanneld, this one knows {VERSION};"
                " run the newer one, or move the file away"
            )
        return Owned(*(getattr(document, field) for field in Owned.__struct_fields__))

    def _move_aside(self, reason: str) -> None:
        if self._dry_run:
            log.warning("%s: damaged (%s); a start would move it aside", self.path, reason)
            return
        aside = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
        try:
            self.path.rename(aside)
        except OSError as error:
            raise FlannelError(
                f"{self.path}: damaged ({reason}) and cannot be moved aside ({error.strerror}); move it away"
            ) from error
        log.warning(
            "%s: damaged (%s), kept as %s; devices and routes of networks used earlier are not removed",
            self.path,
            reason,
            aside.name,
        )


def _union(a: Owned, b: Owned) -> Owned:
    return Owned(
        a.devices | b.devices,
        a.networks | b.networks,
        a.external | b.external,
        _union_of_sets(a.records, b.records),
        {**a.backends, **b.backends},
    )


def _union_of_sets(a: Mapping[str, frozenset[str]], b: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {name: a.get(name, frozenset()) | b.get(name, frozenset()) for name in {**a, **b}}
