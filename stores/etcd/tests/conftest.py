"""A real etcd, and looks at it that do not go through the client under test."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import socket
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import StoreContext, SubnetStore
from flannel_store_etcd.etcd import EtcdOptions, EtcdStore
from flannel_store_etcd.rpc import prefix_end

QUICK = ("--unsafe-no-fsync", "--heartbeat-interval=20", "--election-timeout=200")
"""No disk to wait for, and elections that take no second."""


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


class Raw:
    """Keys and values over etcd's JSON gateway, as a faulty or foreign program would write them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **body: Any) -> Any:
        def plain(value: Any) -> Any:
            return base64.b64encode(value).decode() if isinstance(value, bytes) else value

        data = json.dumps({name: plain(value) for name, value in body.items()}).encode()
        with urllib.request.urlopen(f"{self.url}/v3/{path}", data, timeout=10) as answer:
            return json.load(answer)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.ask("kv/put", key=key, value=value, lease=lease)

    def delete(self, key: bytes) -> None:
        self.ask("kv/deleterange", key=key)

    def get(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        """Everything that begins with ``prefix``."""
        return {base64.b64decode(kv["key"]): base64.b64decode(kv.get("value", "")) for kv in self.kvs(prefix)}

    def kvs(self, prefix: bytes = b"") -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.ask("kv/range", key=prefix or b"\0", range_end=prefix_end(prefix)).get(
            "kvs", []
        )
        return found

    def put_leases(self, prefix: str, leases: Mapping[str, bytes]) -> None:
        """Many at once, each for good."""
        names = list(leases)
        for first in range(0, len(names), 100):
            puts = [
                {
                    "requestPut": {
                        "key": base64.b64encode(f"{prefix}/subnets/{name}".encode()).decode(),
                        "value": base64.b64encode(leases[name]).decode(),
                    }
                }
                for name in names[first : first + 100]
            ]
            self.ask("kv/txn", success=puts)

    def requests(self) -> Counter[str]:
        """How many calls of each method etcd has served since its start."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        pattern = r'grpc_server_started_total\{grpc_method="(\w+)".*\} (\d+)'
        return Counter({method: int(count) for method, count in re.findall(pattern, text) if count != "0"})

    def revision(self) -> int:
        return int(self.ask("kv/range", key=b"x")["header"]["revision"])

    def compact(self) -> None:
        """Forget all history."""
        self.ask("kv/compaction", revision=str(self.revision()), physical=True)

    def grant(self, seconds: int = 86_400) -> int:
        return int(self.ask("lease/grant", TTL=seconds)["ID"])


@asynccontextmanager
async def opened(endpoints: str, prefix: str = "/coreos.com/network", **options: Any) -> AsyncIterator[EtcdStore]:
    """A store of its own, as one agent has it. ``dry_run`` is its context's."""
    context = StoreContext(Path("/nonexistent"), dry_run=options.pop("dry_run", False))
    store = EtcdStore(EtcdOptions(endpoints, prefix, **options), context)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def agent(shared: EtcdCluster, prefix: str) -> Callable[..., AbstractAsyncContextManager[EtcdStore]]:
    """Stores at the shared member, under the test's prefix; ``agent("https://...", ...)`` for others."""

    def make(endpoints: str = shared.endpoints, **options: Any) -> AbstractAsyncContextManager[EtcdStore]:
        return opened(endpoints, options.pop("prefix", prefix), **options)

    return make


async def until_true(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until ``true()``."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - some of what is waited for is not ours to make an event of
            await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Any]:
    return until_true


async def complaint_of(store: SubnetStore[Any]) -> str:
    """What the store says about why it cannot be used, while something waits for it."""

    async def wait_for_config() -> None:
        async for _ in store.config():
            pass

    waiting = asyncio.create_task(wait_for_config())
    try:
        await until_true(lambda: store.unavailable)
        assert store.unavailable is not None
        return store.unavailable
    finally:
        waiting.cancel()


@pytest.fixture
def complaint() -> Callable[[SubnetStore[Any]], Any]:
    return complaint_of


class Proxy:
    """A TCP proxy in front of one member, to cut and to deafen."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition("/")[2].rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._open = True
        self._passing = threading.Event()
        self._passing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and each new one at once."""
        self._open = False
        while self._sockets:
            _end(self._sockets.pop())

    def deafen(self) -> None:
        """Pass on nothing any more, in either direction, and keep the connections."""
        self._passing.clear()

    def restore(self) -> None:
        """As it was."""
        self._open = True
        self._passing.set()

    def turn_to(self, target: str) -> None:
        """From now on it is in front of another member."""
        host, _, port = target.rpartition("/")[2].rpartition(":")
        self._target = (host, int(port))
        self.cut()
        self._open = True

    def close(self) -> None:
        self.cut()
        self._passing.set()
        _end(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += (client, server)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()
            if not self._open:
                self.cut()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(65536):
                self._passing.wait()
                sink.sendall(data)
        except OSError:
            pass
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member for every test that does not disturb it; each takes a prefix of its own."""
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"), options=QUICK)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="session")
def raw(shared: EtcdCluster) -> Raw:
    """The shared member, past the client."""
    return Raw(shared.endpoints)


@pytest.fixture
def raw_at() -> type[Raw]:
    """The same for another member's URL."""
    return Raw


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Callable[..., EtcdCluster]]:
    """Makes clusters that the test may kill, started."""
    made: list[EtcdCluster] = []

    def make(**how: Any) -> EtcdCluster:
        options = [*QUICK, *how.pop("options", ())]
        directory = how.pop("directory", tmp_path / f"cluster{len(made)}")
        directory.mkdir(exist_ok=True)
        cluster = EtcdCluster(directory, options=options, **how)
        made.append(cluster)
        cluster.start()
        return cluster

    yield make
    for cluster in made:
        cluster.kill()


@pytest.fixture
def proxies() -> Iterator[Callable[[str], Proxy]]:
    """Makes a proxy in front of a URL."""
    made: list[Proxy] = []

    def make(url: str) -> Proxy:
        made.append(Proxy(url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
