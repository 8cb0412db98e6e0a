"""Plugins that exist for one test: real distributions on sys.path, found through their real metadata."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

FILE_STORE = '''
import asyncio
from pathlib import Path
from typing import Annotated

import msgspec

from flannel_core.hookspecs import hookimpl
from flannel_core.store import ConfigText, StoreUnavailable, SubnetStore


class Options(msgspec.Struct, frozen=True, kw_only=True):
    file: Annotated[Path, msgspec.Meta(description="where it lies")] = Path("/nowhere")
    retries: Annotated[int, msgspec.Meta(ge=0, le=9, description="how often")] = 3
    shared: bool = False
    servers: tuple[str, ...] = ()
    api: Annotated[str, msgspec.Meta(extra={"option": "kube-api-url"})] = ""
    pause: float | None = None


class FileStore(SubnetStore[Options]):
    """Holds a configuration in a file, and no lease."""

    Options = Options
    capabilities = frozenset({"set_config"})

    async def config(self):
        if self.options.file.name == "silent":
            self.unavailable = "nobody is at home"
            await asyncio.Event().wait()
        if self.options.file.name == "away":
            raise StoreUnavailable("connection refused")
        exists = self.options.file.exists()
        yield ConfigText(self.options.file.read_bytes() if exists else None, str(self.options.file))

    async def set_config(self, text):
        self.options.file.write_bytes(text)

    async def previous(self, wish): ...
    async def acquire(self, request): ...
    async def announce(self, lease, wish): ...
    async def keep(self, lease, margin_seconds): ...
    def leases(self): ...


@hookimpl
def flannel_store():
    return FileStore
'''


class MakeDistribution(Protocol):
    def __call__(
        self, name: str, entry_points: str, modules: Mapping[str, str] = ..., *, version: str = ...
    ) -> Path: ...


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDistribution]:
    """Installs a distribution for the time of the test: its entry_points.txt and its modules by name."""
    imported: set[str] = set()

    def make(name: str, entry_points: str, modules: Mapping[str, str] = {}, *, version: str = "1.2.3") -> Path:
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text))
            imported.add(module)
        monkeypatch.syspath_prepend(folder)
        return info

    yield make
    for module in imported:
        sys.modules.pop(module, None)


@pytest.fixture
def filestore(distribution: MakeDistribution) -> None:
    """The store ``filed``, with options of every kind."""
    distribution("flannel-store-filed", "[flannel.stores]\nfiled = filed_store\n", {"filed_store": FILE_STORE})
