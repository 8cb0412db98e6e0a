"""One API server for all tests, emptied between them, and stores that talk to it as the service account of flannel."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lab.kubernetes.access import FLANNEL, FLANNEL_RIGHTS
from flannel_core.lab.kubernetes.api import Faults
from flannel_core.store import StoreContext
from flannel_store_kubernetes.kubernetes import KubernetesOptions, KubernetesStore

NODE = "n1"
"""The node of the host under test."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test may be a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path_factory.mktemp("kube-apiserver")) as server:
        yield server


@pytest.fixture
def cluster(server: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    """The server with one node, this host's, that has a podCIDR of each family; no faults, the rights of
    kube-flannel.yml, nothing asked yet."""
    monkeypatch.setenv("NODE_NAME", NODE)
    server.down()  # whatever the test before left of it
    server.up()
    for each in server.objects("nodes"):
        server.delete_node(each["metadata"]["name"])
    server.faults(**{name: getattr(Faults(), name) for name in Faults.__struct_fields__})
    for verb, resource in FLANNEL_RIGHTS:
        server.allow(verb, resource)
    for verb in ("create", "list"):
        server.deny(verb, "events", FLANNEL)
    server.put_nodes([node(NODE, ["10.5.1.0/24", "fd00:5:0:1::/64"])])
    server.compact()
    server.forget_requests()
    return server


MakeStore = Callable[..., KubernetesStore]


@pytest.fixture
def make_store(cluster: KubernetesServer, tmp_path: Path) -> MakeStore:
    """``make_store(dry_run=..., **options)``: a store of this host, not opened."""

    def make(*, dry_run: bool = False, **options: Any) -> KubernetesStore:
        if not options.keys() & {"kubeconfig", "api_url"}:
            options["kubeconfig"] = str(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        context = StoreContext(tmp_path, tmp_path / "net-conf.json", dry_run=dry_run)
        return KubernetesStore(KubernetesOptions(**options), context)

    return make


@pytest.fixture
def opened(make_store: MakeStore) -> Callable[..., Any]:
    """The same, open as long as it is entered."""

    @asynccontextmanager
    async def enter(**how: Any) -> AsyncIterator[KubernetesStore]:
        store = make_store(**how)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    return enter


async def until_true(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until ``true()``."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Any]:
    return until_true
