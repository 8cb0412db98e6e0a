"""Agents in networks that are made otherwise: both families, a shared VPC, a store that is away, a clone."""

from __future__ import annotations

from flannel_core.lab import Lab
from flannel_core.lab.gce.lab_cloud import GceLabCloud
from flannel_core.lab.stores import EtcdLabStore

HEALED = 15.0


def test_in_a_shared_vpc_both_families_are_forwarded_to_the_hosts_addresses(lab: Lab) -> None:
    cloud = GceLabCloud.of(lab)
    network = cloud.share("flannel-host")
    a, b = lab.hosts(2, backend="gce", ipv6=True)
    wanted: dict[str, str] = {}
    for host in (a, b):
        assert host.machine.ipv4
        assert host.machine.ipv6
        four, six = (str(subnet) for subnet in host.env.subnets)
        wanted |= {four: str(host.machine.ipv4.ip), six: str(host.machine.ipv6.ip)}
    lab.eventually(lambda: cloud.routes() == wanted, within=HEALED)
    lab.eventually(lambda: a.pings(b, 4) and a.pings(b, 6))
    backend = a.status().backend
    assert backend
    assert any(network in note for note in backend.notes)
    cloud.delete_route(a.env.subnets[0])
    lab.eventually(lambda: cloud.routes() == wanted, within=HEALED)
    assert cloud.faults() == []


def test_a_fabric_of_ipv6_alone_asks_metadata_and_api_by_ipv6(lab: Lab) -> None:
    cloud = GceLabCloud.of(lab)
    a, b = lab.hosts(2, backend="gce", ipv4=False, ipv6=True)
    lab.eventually(lambda: cloud.routes() == {str(h.env.subnets[0]): cloud.instances[h.name] for h in (a, b)}, HEALED)
    lab.eventually(lambda: a.pings(b))
    assert cloud.faults() == []


def test_while_the_store_is_gone_anothers_route_for_our_subnet_is_named_and_left(lab: Lab) -> None:
    cloud = GceLabCloud.of(lab)
    (a,) = lab.hosts(1, backend="gce", store="etcd", options={"CheckInterval": 1})
    assert isinstance(a.store, EtcdLabStore)
    ours, stranger = cloud.instances["h1"], cloud.add_stranger()
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): ours}, within=HEALED)
    a.store.cluster.kill()
    cloud.put_route(a.subnet, stranger)
    in_the_way = f"{a.subnet} via {stranger}"
    lab.eventually(lambda: [p for p in a.status().problems if in_the_way in p], within=2 * HEALED)
    assert cloud.routes() == {str(a.subnet): stranger}
    a.store.cluster.start()
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): ours}, within=2 * HEALED)


def test_credentials_reach_no_log_whatever_it_is_told_to_say(lab: Lab) -> None:
    cloud = GceLabCloud.of(lab)
    (a,) = lab.hosts(1, backend="gce", started=False)
    a.start(v="10")
    lab.wait_until_ready([a])
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): cloud.instances["h1"]}, within=HEALED)
    a.stop()
    assert "ya29." not in a.log()
    assert "Bearer" not in a.log()
