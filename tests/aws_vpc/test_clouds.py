"""Agents in VPCs that are made otherwise: both families, several tables, a store that is away."""

from __future__ import annotations

import signal

from flannel_core.lab import Lab
from flannel_core.lab.aws.lab_cloud import AwsLabCloud
from flannel_core.lab.stores import EtcdLabStore

HEALED = 15.0


def test_both_families_go_into_both_tables_and_the_routes_of_a_table_no_longer_named_go(lab: Lab) -> None:
    cloud = AwsLabCloud.of(lab)
    second = cloud.create_table()
    a, b = lab.hosts(2, backend="aws-vpc", ipv6=True, options={"RouteTableID": [cloud.table, second]})
    wanted = {str(subnet): cloud.interfaces[host.machine.name] for host in (a, b) for subnet in host.env.subnets}
    assert len(wanted) == 4
    lab.eventually(lambda: cloud.routes() == cloud.routes(second) == wanted, within=HEALED)
    lab.eventually(lambda: a.pings(b, 4) and a.pings(b, 6))
    one = {"Type": "aws-vpc", **cloud.options, "RouteTableID": cloud.table}
    lab.set_config({"Network": "10.5.0.0/16", "IPv6Network": "fc00:5::/48", "EnableIPv6": True, "Backend": one})
    lab.eventually(lambda: cloud.routes(second) == {}, within=HEALED)
    assert cloud.routes() == wanted
    assert a.pings(b)


def test_a_table_of_another_vpc_is_named_until_another_one_is(lab: Lab) -> None:
    cloud = AwsLabCloud.of(lab)
    other = cloud.create_table(cloud.ec2("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"])
    (a,) = lab.hosts(1, backend="aws-vpc", started=False, options={"RouteTableID": other})
    a.start()
    lab.eventually(lambda: f"Backend.RouteTableID is {other}" in (a.status().waiting_for or ""), within=HEALED)
    backend = {"Type": "aws-vpc", **cloud.options, "RouteTableID": cloud.table}
    lab.set_config({"Network": "10.5.0.0/16", "Backend": backend})
    lab.wait_until_ready([a])
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): cloud.interfaces["h1"]}, within=HEALED)


def test_while_the_store_never_answers_anothers_route_for_our_subnet_is_named_and_left(lab: Lab) -> None:
    cloud = AwsLabCloud.of(lab)
    (a,) = lab.hosts(1, backend="aws-vpc", store="etcd", options={"CheckInterval": 1})
    assert isinstance(a.store, EtcdLabStore)
    ours, (_, stranger) = cloud.interfaces["h1"], cloud.add_stranger()
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): ours}, within=HEALED)
    (member,) = a.store.cluster.members
    member.freeze()
    cloud.replace_route(a.subnet, stranger)
    in_the_way = f"{a.subnet} via {stranger}"
    lab.eventually(lambda: [p for p in a.status().problems if in_the_way in p], within=2 * HEALED)
    assert cloud.routes() == {str(a.subnet): stranger}
    member.thaw()
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): ours}, within=2 * HEALED)


def test_the_route_goes_with_the_lease_and_who_has_lost_it_does_not_take_it_back(lab: Lab) -> None:
    cloud = AwsLabCloud.of(lab)
    a, b = lab.hosts(2, backend="aws-vpc", started=False)
    one_subnet = {"SubnetMin": "10.5.7.0", "SubnetMax": "10.5.7.0"}
    backend = {"Type": "aws-vpc", **cloud.options, "CheckInterval": 1}
    lab.set_config({"Network": "10.5.0.0/16", **one_subnet, "Backend": backend})
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: cloud.routes() == {"10.5.7.0/24": cloud.interfaces["h1"]}, within=HEALED)
    assert a.process
    a.process.send_signal(signal.SIGSTOP)
    a.store.release(a.subnet)
    b.start()
    lab.wait_until_ready([b])
    lab.eventually(lambda: cloud.routes() == {"10.5.7.0/24": cloud.interfaces["h2"]}, within=HEALED)
    cloud.forget_requests()
    a.process.send_signal(signal.SIGCONT)
    lab.eventually(lambda: not a.running, within=HEALED)  # as Go: another host holds its subnet
    a.start()
    lab.eventually(lambda: "subnet" in (a.status().waiting_for or ""), within=HEALED)
    assert cloud.routes() == {"10.5.7.0/24": cloud.interfaces["h2"]}
    assert cloud.writes() == []


def test_credentials_reach_no_log_whatever_it_is_told_to_say(lab: Lab) -> None:
    cloud = AwsLabCloud.of(lab)
    (a,) = lab.hosts(1, backend="aws-vpc", started=False)
    a.start(v="10")
    lab.wait_until_ready([a])
    lab.eventually(lambda: cloud.routes() == {str(a.subnet): cloud.interfaces["h1"]}, within=HEALED)
    a.stop()
    for secret in ("lab-secret-key", "lab-session-token", "Signature="):
        assert secret not in a.log()
