"""This host's own node: what is read of it, what is written to it and when nothing is, and what is waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from flannel_core.conformance.store_kit import DUAL, IPV4, host, net_conf
from flannel_core.conformance.watching import watching
from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lab.kubernetes.access import FLANNEL
from flannel_core.lease import Lease
from flannel_core.store import LeaseLost, PublicAddresses, Request, StoreError, StoreUnavailable, SubnetNotAssigned
from flannel_store_kubernetes import kubernetes, own_node

PREFIX = "flannel.alpha.coreos.com"
NODE = "n1"

Opened = Callable[..., Any]
Until = Callable[..., Any]


def said(cluster: KubernetesServer, prefix: str = f"{PREFIX}/") -> dict[str, str]:
    annotations = cluster.node(NODE)["metadata"].get("annotations", {})
    return {key.removeprefix(prefix): text for key, text in annotations.items() if key.startswith(prefix)}


def written(cluster: KubernetesServer) -> list[Any]:
    """The bodies of all writes, in order."""
    return [json.loads(asked.body) for asked in cluster.requests() if asked.verb in ("patch", "create")]


# --- what is written ------------------------------------------------------------------------------------------------


async def test_a_start_writes_once_and_a_restart_writes_nothing(cluster: KubernetesServer, opened: Opened) -> None:
    async def start() -> Lease:
        async with opened() as store:
            await store.public_addresses()
            await store.previous(host(1))
            return await store.acquire(Request(DUAL, host(1)))  # type: ignore[no-any-return]

    lease = await start()
    assert lease.subnets == (IPv4Network("10.5.1.0/24"), IPv6Network("fd00:5:0:1::/64"))
    assert said(cluster) == {
        "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}',
        "backend-type": "vxlan",
        "backend-v6-data": '{"VNI":1,"VtepMAC":"06:00:00:00:00:01"}',
        "kube-subnet-manager": "true",
        "public-ip": "192.0.2.1",
        "public-ipv6": "2001:db8::1",
    }
    (patch,) = [asked for asked in cluster.requests() if asked.verb == "patch"]
    assert (patch.resource, patch.content_type) == ("nodes/status", "application/strategic-merge-patch+json")
    cluster.forget_requests()
    assert await start() == lease
    assert written(cluster) == []


async def test_only_what_changed_is_written(cluster: KubernetesServer, opened: Opened) -> None:
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        cluster.forget_requests()
        await store.announce(lease, host(1, public_ipv4=IPv4Address("192.0.2.77")))
        assert written(cluster) == [{"metadata": {"annotations": {f"{PREFIX}/public-ip": "192.0.2.77"}}}]


async def test_a_node_keeps_the_annotations_of_others(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.put_nodes([node(NODE, ["10.5.1.0/24"], annotations={"volumes.kubernetes.io/attach": "true"})])
    async with opened() as store:
        await store.acquire(Request(IPV4, host(1)))
    assert cluster.node(NODE)["metadata"]["annotations"]["volumes.kubernetes.io/attach"] == "true"


async def test_another_prefix_is_written_and_read_back(cluster: KubernetesServer, opened: Opened) -> None:
    async with opened(annotation_prefix="example.com/blue") as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        assert await store.previous(host(1)) == lease, "Go flannel does not find its MAC again"
    assert said(cluster, "example.com/blue-")["public-ip"] == "192.0.2.1"
    assert said(cluster) == {}


async def test_an_operators_overwrite_is_published_and_written_once(cluster: KubernetesServer, opened: Opened) -> None:
    overwrite = {f"{PREFIX}/public-ip-overwrite": "198.51.100.7"}
    cluster.put_nodes([node(NODE, ["10.5.1.0/24"], annotations=overwrite)])
    async with opened() as store:
        for _ in range(2):
            lease = await store.acquire(Request(IPV4, host(1)))
            assert lease.ipv4.public_ip == IPv4Address("198.51.100.7")
    assert said(cluster)["public-ip"] == "198.51.100.7"
    assert len(written(cluster)) == 1


async def test_an_operators_addresses_are_read(cluster: KubernetesServer, opened: Opened) -> None:
    async def run() -> PublicAddresses:
        async with opened() as store:
            return await store.public_addresses()  # type: ignore[no-any-return]

    assert await run() == PublicAddresses()
    given = {f"{PREFIX}/node-public-ip": "198.51.100.7", f"{PREFIX}/node-public-ipv6": "2001:db8::7"}
    cluster.put_nodes([node(NODE, ["10.5.1.0/24"], annotations=given)])
    assert await run() == PublicAddresses(IPv4Address("198.51.100.7"), IPv6Address("2001:db8::7"))
    cluster.put_nodes([node(NODE, ["10.5.1.0/24"], annotations={f"{PREFIX}/node-public-ip": "here"})])
    with pytest.raises(StoreUnavailable, match=r"node-public-ip is 'here', which is no IPv4 .*kubectl annotate"):
        await run()


# --- traffic flows --------------------------------------------------------------------------------------------------


async def test_network_unavailable_is_cleared_once(cluster: KubernetesServer, opened: Opened, until: Until) -> None:
    def condition() -> Any:
        conditions = cluster.node(NODE)["status"]["conditions"]
        assert [each["type"] for each in conditions] == ["Ready", "NetworkUnavailable"]
        return conditions[1]

    async with opened() as store:
        await store.ready()
        await until(lambda: condition()["status"] == "False")
        await store.acquire(Request(IPV4, host(1)))  # as after a lost lease
        await until(lambda: cluster.counts()["get nodes"] == 3)
    assert (condition()["reason"], condition()["message"]) == ("FlannelIsUp", "Flannel is running on this node")
    assert condition()["lastHeartbeatTime"] == condition()["lastTransitionTime"]
    assert sum("status" in each for each in written(cluster)) == 1


async def test_network_unavailable_is_left_to_others_if_the_operator_says_so(
    cluster: KubernetesServer, opened: Opened
) -> None:
    async with opened(set_network_available=False) as store:
        await store.ready()
    assert cluster.requests() == []


async def test_network_unavailable_is_cleared_as_soon_as_the_server_lets_us(
    cluster: KubernetesServer, opened: Opened, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_node, "FIRST_PAUSE_SECONDS", 0.1)
    cluster.deny("patch", "nodes/status")
    async with opened() as store:
        await store.ready()
        await until(lambda: store.unavailable)
        assert 'resources: ["nodes/status"], verbs: ["patch"]' in store.unavailable
        cluster.allow("patch", "nodes/status")
        await until(lambda: cluster.node(NODE)["status"]["conditions"][1]["status"] == "False")
        await until(lambda: store.unavailable is None)


# --- what is waited for ---------------------------------------------------------------------------------------------


async def refusal(opened: Opened, config: Any = IPV4, times: int = 1) -> str:
    async with opened() as store:
        for _ in range(times):
            with pytest.raises(SubnetNotAssigned) as refused:
                await store.acquire(Request(config, host(1)))
        return str(refused.value)


async def test_a_pod_cidr_that_is_not_assigned_is_waited_for_and_told_in_an_event(
    cluster: KubernetesServer, opened: Opened
) -> None:
    cluster.put_nodes([node(NODE)])
    cluster.allow("create", "events", FLANNEL)
    text = await refusal(opened, times=3)
    assert text.startswith('node "n1" pod cidr not assigned; ')
    assert "--allocate-node-cidrs=true --cluster-cidr=10.5.0.0/16" in text
    (event,) = written(cluster)
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "PodCIDRNotAssigned", text)
    assert event["involvedObject"] == {"kind": "Node", "apiVersion": "v1", "name": NODE, "uid": NODE}
    assert len(cluster.objects("events")) == 1


async def test_without_the_right_to_events_it_waits_as_well_and_asks_for_the_right_once(
    cluster: KubernetesServer, opened: Opened
) -> None:
    cluster.put_nodes([node(NODE)])
    await refusal(opened, times=3)
    assert cluster.counts()["create events"] == 1


async def test_the_pod_cidr_is_taken_as_soon_as_it_is_there(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.put_nodes([node(NODE)])
    async with opened() as store:
        with pytest.raises(SubnetNotAssigned):
            await store.acquire(Request(IPV4, host(1)))
        assert store.unavailable is None, "the server answers"
        cluster.put_nodes([node(NODE, ["10.5.9.0/25"])])
        assert (await store.acquire(Request(IPV4, host(1)))).subnets == (IPv4Network("10.5.9.0/25"),)


@pytest.mark.parametrize(
    ("pod_cidrs", "config", "sentence"),
    [
        (
            ["10.9.1.0/24"],
            IPV4,
            'subnet "10.5.0.0/16" specified in the flannel net config doesn\'t contain "10.9.1.0/24" PodCIDR of the '
            '"n1" node; set Network',
        ),
        (
            ["10.9.1.0/24", "fd01::/64"],
            DUAL,
            'subnet "fd00:5::/48" specified in the flannel net config doesn\'t contain "fd01::/64" IPv6 PodCIDR of the '
            '"n1" node; set IPv6Network',
        ),
        (["10.0.0.0/8"], IPV4, 'doesn\'t contain "10.0.0.0/8" PodCIDR of the "n1" node'),
        (["10.5.1.0/24", "10.5.2.0/24", "fd00:5::/64"], IPV4, "pod cidrs should be IPv4/IPv6 only or dualstack"),
        (["fd00:5::/64"], IPV4, 'node "n1" IPv4 pod cidr not assigned'),
    ],
)
async def test_a_pod_cidr_that_cannot_be_used_is_named_with_the_cure(
    cluster: KubernetesServer, opened: Opened, pod_cidrs: list[str], config: Any, sentence: str
) -> None:
    cluster.put_nodes([node(NODE, pod_cidrs)])
    assert sentence in await refusal(opened, config)
    assert cluster.counts()["patch nodes/status"] == 0


async def test_a_family_without_a_pod_cidr_is_named_and_the_other_goes_on(
    cluster: KubernetesServer, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.put_nodes([node(NODE, ["10.5.1.0/24"])])
    async with opened() as store:
        lease = await store.acquire(Request(DUAL, host(1)))
        assert lease.subnets == (IPv4Network("10.5.1.0/24"),)
    assert 'node "n1" IPv6 pod cidr not assigned' in caplog.text
    assert "public-ipv6" not in said(cluster)


async def test_a_node_that_is_not_there_is_waited_for(cluster: KubernetesServer, opened: Opened) -> None:
    cluster.delete_node(NODE)
    async with opened() as store:
        assert await store.public_addresses() == PublicAddresses()
        assert await store.previous(host(1)) is None
    text = await refusal(opened)
    assert 'there is no node "n1"' in text
    assert "NODE_NAME is not its name" in text


# --- which node this is ---------------------------------------------------------------------------------------------


async def test_the_node_of_the_pod_is_asked_for(
    cluster: KubernetesServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME")
    monkeypatch.setenv("POD_NAME", "kube-flannel-ds-x")
    monkeypatch.setenv("POD_NAMESPACE", "kube-flannel")

    async def run() -> Lease:
        async with opened() as store:
            return await store.acquire(Request(IPV4, host(1)))  # type: ignore[no-any-return]

    with pytest.raises(
        StoreUnavailable, match=r"error retrieving pod spec for 'kube-flannel/kube-flannel-ds-x': .*404"
    ):
        await run()
    pod: dict[str, Any] = {"metadata": {"name": "kube-flannel-ds-x"}, "spec": {}}
    cluster.put("pods", pod, "kube-flannel")
    with pytest.raises(StoreUnavailable, match="node name not present in pod spec 'kube-flannel/kube-flannel-ds-x'"):
        await run()
    cluster.put("pods", {**pod, "spec": {"nodeName": NODE}}, "kube-flannel")
    assert (await run()).key == NODE


@pytest.mark.parametrize("given", [{}, {"POD_NAME": "x"}, {"POD_NAMESPACE": "x"}])
async def test_without_a_name_it_ends_with_gos_sentence(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.delenv("NODE_NAME")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    async with opened() as store:
        with pytest.raises(StoreError, match="env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME"):
            await store.public_addresses()


# --- keeping --------------------------------------------------------------------------------------------------------


async def kept(opened: Opened, change: Callable[[], None]) -> str:
    """Why a lease is lost when this happens under its keeper."""
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        change()
        async with asyncio.timeout(10):
            lost = await keeping
        assert lost.holder is None
        with pytest.raises(LeaseLost):
            await store.announce(lease, host(2))
        return str(lost.reason)


async def test_a_lease_is_lost_with_its_node(cluster: KubernetesServer, opened: Opened) -> None:
    assert "node n1 is gone" in await kept(opened, lambda: cluster.delete_node(NODE))


async def test_a_lease_is_lost_with_its_pod_cidr(cluster: KubernetesServer, opened: Opened) -> None:
    created = {"creationTimestamp": cluster.node(NODE)["metadata"]["creationTimestamp"]}

    def change(pod_cidrs: list[str]) -> None:
        moved = node(NODE, pod_cidrs)
        cluster.put_nodes([{**moved, "metadata": moved["metadata"] | created}])

    reason = await kept(opened, lambda: change(["10.5.2.0/24"]))
    assert reason == "the podCIDR of node n1 is 10.5.2.0/24, and was 10.5.1.0/24"
    change(["10.5.1.0/24"])
    assert "the podCIDR of node n1 is gone" in await kept(opened, lambda: change([]))


async def test_a_node_that_is_registered_anew_is_annotated_anew(cluster: KubernetesServer, opened: Opened) -> None:
    """Go flannel leaves it without annotations, unreachable for all."""

    def change() -> None:
        anew = node(NODE, ["10.5.1.0/24"])
        metadata = anew["metadata"] | {"creationTimestamp": "2030-01-01T00:00:00Z"}
        cluster.delete_node(NODE)
        cluster.put_nodes([{**anew, "metadata": metadata}])

    async with opened() as store:
        before = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(before, 60))
        change()
        async with asyncio.timeout(10):
            lost = await keeping
        assert "n1" in lost.reason
        after = await store.acquire(Request(IPV4, host(1)))
        assert (after.subnets, after.created > before.created) == (before.subnets, True)
    assert said(cluster)["public-ip"] == "192.0.2.1"


async def test_annotations_that_another_changed_are_put_back_once(
    cluster: KubernetesServer, opened: Opened, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "REWRITE_SECONDS", 0.2)
    async with opened() as store:
        renewed: list[Lease] = []
        store.on_renewal = renewed.append
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        before = cluster.node(NODE)
        cluster.forget_requests()
        annotations = before["metadata"]["annotations"] | {f"{PREFIX}/public-ip": "203.0.113.9"}
        cluster.put_nodes([{**before, "metadata": before["metadata"] | {"annotations": annotations}}])
        await until(lambda: renewed)
        assert written(cluster) == [{"metadata": {"annotations": {f"{PREFIX}/public-ip": "192.0.2.1"}}}]
        async with watching(store, 5) as watcher:
            assert watcher.view == {NODE: renewed[0]}
        keeping.cancel()


async def test_annotations_that_cannot_be_put_back_are_tried_again_until_the_store_is_closed(
    cluster: KubernetesServer, opened: Opened, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "REWRITE_SECONDS", 0.1)
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        cluster.deny("patch", "nodes/status")
        cluster.put_nodes([without_annotations(cluster)])
        await until(lambda: cluster.counts()["patch nodes/status"] >= 3)
        cluster.allow("patch", "nodes/status")
        await until(lambda: said(cluster).get("public-ip") == "192.0.2.1")
        cluster.deny("patch", "nodes/status")
        cluster.put_nodes([without_annotations(cluster)])
        await until(lambda: store.unavailable)
    with pytest.raises(StoreUnavailable):
        await keeping


async def test_a_node_that_goes_while_its_annotations_are_put_back_is_lost(
    cluster: KubernetesServer, opened: Opened, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "REWRITE_SECONDS", 0.1)
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        cluster.deny("patch", "nodes/status")
        cluster.put_nodes([without_annotations(cluster)])
        await until(lambda: store.unavailable)
        cluster.delete_node(NODE)
        cluster.allow("patch", "nodes/status")
        assert "node n1 is gone" in (await keeping).reason


def without_annotations(cluster: KubernetesServer) -> Any:
    found = cluster.node(NODE)
    return {**found, "metadata": found["metadata"] | {"annotations": {}}}


async def test_an_announcement_is_not_taken_for_anothers_change(cluster: KubernetesServer, opened: Opened) -> None:
    async with opened() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        for number in range(2, 12):
            lease = await store.announce(lease, host(number))
        cluster.put_nodes([node("n2", ["10.5.2.0/24"])])
        await asyncio.sleep(0.3)
        assert not keeping.done()
        keeping.cancel()
    assert len(written(cluster)) == 11


async def test_a_lease_that_is_kept_costs_one_watch_and_no_request_more(
    cluster: KubernetesServer, opened: Opened
) -> None:
    async with opened() as store:
        lease = await store.acquire(Request(net_conf(), host(1)))
        cluster.forget_requests()
        keeping = asyncio.create_task(store.keep(lease, 60))
        await asyncio.sleep(0.5)
        keeping.cancel()
    (watch,) = cluster.requests()
    assert (watch.verb, watch.query["fieldSelector"]) == ("watch", "metadata.name=n1")
    assert watch.query["resourceVersion"] == str(lease.revision)
