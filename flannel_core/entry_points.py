"""The entry points of installed distributions, found without ``importlib.metadata``.

That module costs an agent 17 ms of its start and 3 MB for the rest of its life (it brings the email and zip packages
along), for what is the reading of a few small files. It is asked only about places on ``sys.path`` that are no
folders, such as a single-file flanneld. https://packaging.python.org/en/latest/specifications/entry-points/ describes
the files.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)

_FOLDER = re.compile(r"(?P<name>.+?)(-(?P<version>[^-]+)(-.*)?)?\.(dist|egg)-info")
UNKNOWN = "unknown"


class EntryPoint(msgspec.Struct, frozen=True):
    """``value`` is ``module`` or ``module:attribute``; ``distribution`` is in the normal form of PEP 503."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    def load(self) -> Any:
        """Import what it names. Raises whatever the import raises."""
        module, _, attributes = self.value.partition("[")[0].strip().partition(":")
        return reduce(getattr, filter(None, attributes.split(".")), importlib.import_module(module))


def entry_points(group: str) -> Iterator[EntryPoint]:
    """Those of ``group``, in the order of ``sys.path``; of a distribution that stands there twice the first. What
    cannot be read is left out: a damaged distribution is no reason to miss a sound one."""
    seen: set[tuple[str, str]] = set()
    for place in dict.fromkeys(sys.path):
        for name, version, text in _distributions(Path(place)):
            for entry in _parsed(text, group, _normal(name), version):
                key = (entry.distribution, entry.name)
                if key not in seen:
                    seen.add(key)
                    yield entry


def _distributions(place: Path) -> Iterator[tuple[str, str, str]]:
    """Name, version and entry_points.txt of each distribution at one place of ``sys.path``."""
    if place.is_file():
        yield from _archived(place)
        return
    try:
        folders = sorted(place.iterdir())
    except OSError:
        return
    for folder in folders:
        match = _FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        try:
            text = (folder / "entry_points.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            log.debug("unreadable entry points of %s: %s", folder, error)
            continue
        yield match["name"], match["version"] or UNKNOWN, text


def _archived(place: Path) -> Iterator[tuple[str, str, str]]:
    import importlib.metadata

    for distribution in importlib.metadata.distributions(path=[str(place)]):
        try:
            yield distribution.name, distribution.version, distribution.read_text("entry_points.txt") or ""
        except Exception as error:
            log.debug("unreadable entry points in %s: %s", place, error)


def _parsed(text: str, group: str, distribution: str, version: str) -> Iterable[EntryPoint]:
    section = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield EntryPoint(group, name.strip(), value.strip(), distribution, version)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
