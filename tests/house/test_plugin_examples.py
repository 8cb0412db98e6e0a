"""The examples of docs/explanation/plugins.md are complete: installed as they stand, they are found and they work."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.objects import Route
from flannel_core.plugins import load_backend, load_store
from flannel_core.store import Alive, OutOfSubnets, Request, Snapshot, StoreContext, StoreError, SubnetStore, Wish

TEXT = (Path(__file__).parents[2] / "docs/explanation/plugins.md").read_text()
HOSTS = {
    "config": {"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}},
    "hosts": {"10.5.1.0/24": "192.0.2.11", "10.5.2.0/24": "192.0.2.12"},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both examples, as pip would have put them on sys.path."""
    for module, kind, name in (("backend", "backends", "onlink"), ("store", "stores", "static")):
        code = re.search(rf"`flannel_{module}_{name}\.py`:\n\n```python\n(.*?)```", TEXT, flags=re.DOTALL)
        assert code, name
        (tmp_path / f"flannel_{module}_{name}.py").write_text(code[1])
        info = tmp_path / f"flannel_{module}_{name}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flannel-{module}-{name}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[flannel.{kind}]\n{name} = flannel_{module}_{name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def lease(subnet: str, address: str) -> Lease:
    return Lease(key=subnet, backend_type="onlink", ipv4=Endpoint(IPv4Network(subnet), IPv4Address(address)))


def test_the_example_backend_routes_to_a_private_peer_and_names_a_public_one(installed: Path) -> None:
    backend: Backend[Any, Any] = load_backend("onlink")({})
    host = Host(interface="eth0", index=2, mtu=1500, mac="02:00:00:00:00:01")
    config = parse_config(json.dumps(HOSTS["config"]).encode(), "the example")
    node = Node(config, host, Announcement(mtu=1500))
    assert list(backend.peer(node, lease("10.5.2.0/24", "192.168.0.12"))) == [
        Route("10.5.2.0/24", "eth0", gateway="192.168.0.12", onlink=True)
    ]
    (refused,) = backend.peer(node, lease("10.5.3.0/24", "8.8.8.8"))
    assert isinstance(refused, Unreachable)
    assert "8.8.8.8 is a public address" in refused.reason


def store(file: Path) -> SubnetStore[Any]:
    store_class = load_store("static")
    return store_class(store_class.Options(file=file), StoreContext(state_directory=file.parent))


def test_the_example_store_leases_a_listed_host_its_subnet_and_no_other_host_any(installed: Path) -> None:
    file = installed / "hosts.json"
    file.write_text(json.dumps(HOSTS))
    config = parse_config(json.dumps(HOSTS["config"]).encode(), "the example")

    async def scenario() -> None:
        static = store(file)
        text = await anext(static.config())
        assert text.text is not None
        assert parse_config(text.text, text.source) == config
        mine = await static.acquire(Request(config, Wish(IPv4Address("192.0.2.12"), None)))
        assert mine.key == "10.5.2.0/24"
        with pytest.raises(OutOfSubnets, match=r"gives no subnet to 192\.0\.2\.99"):
            await static.acquire(Request(config, Wish(IPv4Address("192.0.2.99"), None)))
        watch = static.leases()
        first, second = await anext(watch), await anext(watch)
        assert isinstance(first, Snapshot)
        assert [entry.key for entry in first.leases] == ["10.5.1.0/24", "10.5.2.0/24"]
        assert isinstance(second, Alive)

    asyncio.run(scenario())


@pytest.mark.parametrize("content", ["", "{", '{"config": {}, "hosts": {"10.5.1.0/24": "no address"}}'])
def test_the_example_store_names_a_file_that_it_cannot_use(installed: Path, content: str) -> None:
    file = installed / "hosts.json"
    file.write_text(content)
    with pytest.raises(StoreError, match=r"--static-file .*hosts\.json cannot be read"):
        asyncio.run(store(file).list())


def test_the_example_store_is_told_by_the_docs_with_the_file_that_the_tests_use() -> None:
    assert json.dumps(HOSTS["config"]) in TEXT
