"""All nodes and their changes: page by page, past gaps, outages and refusals, with no more requests than are needed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from flannel_core.conformance.store_kit import DUAL, IPV4, host
from flannel_core.conformance.watching import Watcher, watching
from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lease import Lease
from flannel_core.netconf import parse_config
from flannel_core.store import Change, Request, Snapshot, StoreUnavailable
from flannel_store_kubernetes import kubernetes, node_stream
from flannel_store_kubernetes.api import ApiServer
from flannel_store_kubernetes.credentials import Access
from flannel_store_kubernetes.nodes import Dialect

PREFIX = "flannel.alpha.coreos.com"
PATIENCE = 5.0

Opened = Callable[..., Any]
Until = Callable[..., Any]


def peer(number: int, **said: str) -> dict[str, Any]:
    """Node ``number`` as Go flannel left it."""
    data = {"VNI": 1, "VtepMAC": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}
    told = {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": json.dumps(data, separators=(",", ":")),
        "public-ip": f"198.51.{number >> 8}.{number & 255}",
    }
    annotations = {f"{PREFIX}/{key}": text for key, text in (told | said).items()}
    return node(f"p{number}", [f"10.5.{number}.0/24"], annotations=annotations)


def addresses(lease: Lease) -> dict[str, str]:
    return {f"public-ip{'' if e.subnet.version == 4 else 'v6'}": str(e.public_ip) for e in lease.endpoints}


def names(watcher: Watcher) -> set[str]:
    return set(watcher.view)


def lease_of(watcher: Watcher, name: str) -> Lease:
    entry = watcher.view[name]
    assert isinstance(entry, Lease)
    return entry


async def test_peers_are_told_before_the_list_is_whole(
    cluster: KubernetesServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_stream, "CHUNK", 4096)
    cluster.put_nodes(peer(number) for number in range(10, 60))
    async with opened() as store, watching(store, PATIENCE) as watcher:
        first = next(n for n, event in enumerate(watcher.events) if isinstance(event, Snapshot))
        told = [event for event in watcher.events[:first] if isinstance(event, Change)]
        assert {change.key for change in told} == {f"p{number}" for number in range(10, 60)}
        assert all(change.entry is not None for change in told)
        assert names(watcher) == {change.key for change in told}


async def test_a_list_is_read_in_pages_and_one_that_expired_is_read_again(
    cluster: KubernetesServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends pages once something newer than its cache is asked for: after a gap."""
    monkeypatch.setattr(node_stream, "PAGE", "7")
    cluster.put_nodes(peer(number) for number in range(10, 60))
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.down()
        cluster.put_nodes([peer(99)])
        cluster.compact()
        cluster.up()
        seen = len(watcher.snapshots)
        await watcher.until(lambda w: len(w.snapshots) > seen, 3 * PATIENCE)
        assert names(watcher) == {f"p{number}" for number in (*range(10, 60), 99)}
    pages = [asked.query for asked in cluster.requests() if asked.verb == "list"]
    assert pages[0] == {"limit": "7", "resourceVersion": "0"}
    assert {tuple(sorted(page)) for page in pages[1:]} == {("limit",), ("continue", "limit")}
    assert sum("continue" in page for page in pages) >= 7


async def test_a_kubelet_that_writes_its_status_changes_nothing(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.put_nodes([peer(10)])
    async with opened() as store, watching(store, PATIENCE) as watcher:
        for beat in range(5):
            cluster.put_nodes([{**peer(10), "status": {"phase": str(beat)}}])
        cluster.put_nodes([peer(11)])
        await watcher.until(lambda w: "p11" in w.view, PATIENCE)
        assert [change.key for change in watcher.changes if change.key == "p10"] == ["p10"], "the list told it"


@pytest.mark.parametrize("family", [4, 6])
async def test_a_change_of_one_family_is_told_though_the_other_is_as_it_was(
    cluster: KubernetesServer, opened: Opened, family: int
) -> None:
    """Go flannel drops it."""

    def dual(**said: str) -> dict[str, Any]:
        value = peer(10, **{"backend-v6-data": '{"VNI":1}', "public-ipv6": "2001:db8::a", **said})
        value["spec"] = {"podCIDRs": ["10.5.10.0/24", "fd00:5:0:a::/64"]}
        return value

    changed = {4: {"public-ip": "198.51.100.1"}, 6: {"public-ipv6": "2001:db8::b"}}[family]
    cluster.put_nodes([dual()])
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.put_nodes([dual(**changed)])
        await watcher.until(lambda w: changed.items() <= addresses(lease_of(w, "p10")).items(), PATIENCE)


async def test_a_changed_pod_cidr_a_removed_annotation_and_a_deleted_node_are_heard(
    cluster: KubernetesServer, opened: Opened
) -> None:
    cluster.put_nodes([peer(10), peer(11), peer(12)])
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.put_nodes([{**peer(10), "spec": {"podCIDRs": ["10.5.77.0/24"]}}])
        await watcher.until(lambda w: str(lease_of(w, "p10").subnets[0]) == "10.5.77.0/24", PATIENCE)
        cluster.put_nodes([node("p11", ["10.5.11.0/24"])])
        cluster.delete_node("p12")
        await watcher.until(lambda w: names(w) == {"p10"}, PATIENCE)


@pytest.mark.parametrize("as_status", [True, False], ids=["HTTP 410", "ERROR event"])
async def test_a_version_that_is_gone_is_a_gap_and_ends_in_a_snapshot(
    cluster: KubernetesServer, opened: Opened, as_status: bool
) -> None:
    cluster.put_nodes([peer(10)])
    cluster.faults(gone_as_status=as_status)
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.down()
        cluster.put_nodes([peer(11)])
        cluster.delete_node("p10")
        cluster.compact()
        cluster.up()
        await watcher.until(lambda w: names(w) == {"p11"}, 3 * PATIENCE)
        assert len(watcher.snapshots) == 2
        assert cluster.counts()["list nodes"] == 2


async def test_a_watch_that_is_cut_again_and_again_resumes_and_lists_nothing_again(
    cluster: KubernetesServer, opened: Opened
) -> None:
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.faults(cut_watches_every=0.3)
        for number in range(11, 31):
            cluster.put_nodes([peer(number)])
            await asyncio.sleep(0.1)
        await watcher.until(lambda w: len(w.view) == 20, PATIENCE)
        assert [change.key for change in watcher.changes] == [f"p{number}" for number in range(11, 31)]
        counts = cluster.counts()
        assert counts["list nodes"] == 1
        assert counts["watch nodes"] < 20


async def test_a_server_that_is_away_is_named_and_waited_for(
    cluster: KubernetesServer, opened: Opened, until: Until
) -> None:
    async with opened() as store, watching(store, PATIENCE) as watcher:
        cluster.down()
        # The connection that was cut is named first where a call was on it, the port that nobody listens on after.
        await until(lambda: "connection refused" in (store.unavailable or ""))
        cluster.put_nodes([peer(11)])
        cluster.up()
        await watcher.until(lambda w: names(w) == {"p11"}, 3 * PATIENCE)
        assert store.unavailable is None
        assert len(watcher.snapshots) == 1, "nothing was missed, so nothing is listed"


async def test_a_server_that_is_overloaded_is_left_alone_for_as_long_as_it_says(
    cluster: KubernetesServer, opened: Opened
) -> None:
    cluster.faults(refuse=2, retry_after=1)
    began = time.monotonic()
    async with opened() as store, watching(store, 3 * PATIENCE):
        assert time.monotonic() - began >= 2
    asked = [asked.code for asked in cluster.requests() if asked.verb == "list"]
    assert asked == [429, 429, 200]


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_what_the_server_forbids_is_named_with_the_rule_that_allows_it(
    cluster: KubernetesServer, opened: Opened, until: Until, verb: str
) -> None:
    cluster.deny(verb, "nodes")
    async with opened() as store:
        listening = asyncio.create_task(Watcher().listen(store))
        await until(lambda: store.unavailable)
        assert f"forbids to {verb} nodes" in store.unavailable
        assert f'resources: ["nodes"], verbs: ["{verb}"]' in store.unavailable
        assert "system:serviceaccount:kube-flannel:flannel" in store.unavailable
        listening.cancel()


async def test_what_stands_on_the_way_and_answers_html_is_named(
    cluster: KubernetesServer, opened: Opened, until: Until
) -> None:
    cluster.faults(page="<html><body>Sign in to the network</body></html>")
    async with opened() as store:
        listening = asyncio.create_task(Watcher().listen(store))
        await until(lambda: store.unavailable)
        assert "answers 502 with '<html><body>Sign in" in store.unavailable
        assert "a proxy or login page answers in its place" in store.unavailable
        listening.cancel()


async def test_the_list_is_asked_for_before_the_lease_and_holds_it_as_it_was_written(
    cluster: KubernetesServer, opened: Opened, until: Until
) -> None:
    """It was put together before the annotations were there."""
    async with opened() as store:
        await store.public_addresses()
        await until(lambda: cluster.counts()["list nodes"])
        lease = await store.acquire(Request(DUAL, host(1)))
        async with watching(store, PATIENCE) as watcher:
            assert watcher.snapshots[0].leases == (lease,)
        assert cluster.counts()["list nodes"] == 1
        assert [asked.query["resourceVersion"] for asked in cluster.requests() if asked.verb == "list"] == ["0"]


async def test_a_list_that_has_waited_is_asked_for_again(
    cluster: KubernetesServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might lack a peer that came meanwhile, whose routes would be removed."""
    monkeypatch.setattr(kubernetes, "MOST_AHEAD_SECONDS", 0.0)
    async with opened() as store:
        await store.public_addresses()
        cluster.put_nodes([peer(10)])
        async with watching(store, PATIENCE) as watcher:
            assert set(watcher.view) == {"p10"}
            assert len(watcher.snapshots[0].leases) == 1
    assert cluster.counts()["list nodes"] == 2


async def test_with_alloc_only_our_own_node_is_asked_for(
    cluster: KubernetesServer, opened: Opened, tmp_path: Any
) -> None:
    cluster.put_nodes([peer(11)])
    (tmp_path / "net-conf.json").write_text('{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}')
    async with opened() as store:
        text = await anext(aiter(store.config()))
        config = parse_config(text.text or b"", text.source, ranges=False)
        await store.public_addresses()
        lease = await store.acquire(Request(config, host(1, backend_type="", ipv4_data=None, ipv6_data=None)))
        async with watching(store, PATIENCE) as watcher:
            assert watcher.view == {lease.key: lease}
        asked = [asked for asked in cluster.requests() if asked.verb in ("list", "watch")]
        assert {each.query["fieldSelector"] for each in asked} == {"metadata.name=n1"}


async def test_the_list_for_an_operator_says_why_there_is_none(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.put_nodes([peer(10)])
    async with opened() as store:
        assert {lease.key for lease in (await store.list()).leases} == {"p10"}
        cluster.down()
        with pytest.raises(StoreUnavailable, match=r"connection (refused|reset by peer)"):
            await store.list()


async def test_a_new_address_is_announced_over_a_new_connection_and_the_watches_follow(
    cluster: KubernetesServer, opened: Opened, until: Until
) -> None:
    """Nothing comes back to the old one."""
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        async with watching(store, PATIENCE) as watcher:
            await until(lambda: cluster.counts()["watch nodes"] == 2)
            lease = await store.announce(lease, host(2))
            await until(lambda: cluster.counts()["watch nodes"] == 4)
            await watcher.until(lambda w: w.view == {lease.key: lease}, PATIENCE)
            assert len(watcher.snapshots) == 1
            await store.announce(lease, host(2, ipv4_data=b'{"VNI":2}'))
            assert cluster.counts()["watch nodes"] == 4, "the address is the same"
        assert not keeping.done()
        keeping.cancel()


def test_a_restored_cluster_is_listed_again() -> None:
    """Its versions have gone back: a watch from a later one says nothing until they are reached again. A bookmark
    tells, which the server of the lab cannot be made to send."""
    heard: list[Any] = []
    stream = node_stream.NodeStream(ApiServer(Access()), Dialect(PREFIX), lambda node: node, heard.append, since="900")
    with pytest.raises(node_stream._Gone):
        stream._take_in(b'{"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"12"}}}\n')
    assert heard == []


async def test_a_malformed_node_is_named_and_the_others_stand(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.put_nodes([peer(10, **{"public-ip": "nowhere"}), peer(11)])
    async with opened() as store, watching(store, PATIENCE) as watcher:
        assert isinstance(watcher.view["p11"], Lease)
        (malformed,) = watcher.snapshots[0].malformed
        assert malformed.key == "p10"
        assert "flannel.alpha.coreos.com/public-ip is 'nowhere'" in malformed.reason


async def test_a_dry_run_asks_and_writes_nothing(cluster: KubernetesServer, opened: Opened) -> None:
    async with opened(dry_run=True) as store:
        await store.acquire(Request(IPV4, host(1)))
        await store.ready()
        async with watching(store, PATIENCE):
            pass
    assert {asked.verb for asked in cluster.requests()} <= {"get", "list", "watch"}
