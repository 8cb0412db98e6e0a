"""The router under the hosts of a cloud: it forwards what the routes say, and drops what an instance may not send."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping

import pytest

from flannel_core.lab import Host, Lab
from flannel_core.lab.cloud_router import Instance, Router, rules
from flannel_core.lab.clouds import cloud_lacks
from flannel_core.lab.network import inside


class Cloud:
    """Two hosts whose agents leave forwarding to others; what the router is told is the test's to say."""

    def __init__(self, lab: Lab) -> None:
        self.a, self.b = lab.hosts(2, backend="alloc")
        self._namespace = f"flannel-{lab.id}-net"
        self._router = Router()
        inside(self._namespace, self._router.set_up)

    def apply(self, routes: Mapping[Host, Host], forwarding: Collection[Host]) -> None:
        """``routes``: whose subnet leads to whom."""
        instances = [Instance(host.name, (_address(host),), host in forwarding) for host in (self.a, self.b)]
        destinations = {str(subnet_of.subnet): _address(to) for subnet_of, to in routes.items()}
        inside(self._namespace, lambda: self._router.apply(instances, destinations))


def _address(host: Host) -> str:
    assert host.machine.ipv4
    return str(host.machine.ipv4.ip)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab() as lab:
        yield Cloud(lab)


def test_it_forwards_what_the_routes_say_and_no_longer_what_they_said(cloud: Cloud) -> None:
    a, b = cloud.a, cloud.b
    cloud.apply({a: a, b: b}, {a, b})
    assert a.pings(b)
    cloud.apply({a: a}, {a, b})
    assert not a.pings(b)
    cloud.apply({a: a, b: b}, {a, b})
    assert a.pings(b)


def test_a_route_to_the_wrong_host_reaches_nobody(cloud: Cloud) -> None:
    a, b = cloud.a, cloud.b
    cloud.apply({a: a, b: a}, {a, b})
    assert not a.pings(b)


def test_a_host_that_is_checked_neither_sends_nor_is_sent_for_its_pods(cloud: Cloud) -> None:
    a, b = cloud.a, cloud.b
    for checked in (a, b):
        cloud.apply({a: a, b: b}, {a, b} - {checked})
        assert not a.pings(b)
        assert not b.pings(a)


def test_hosts_reach_each_other_whatever_is_checked(cloud: Cloud) -> None:
    cloud.apply({}, ())
    cloud.a.run(f"ping -c 1 -W 1 {_address(cloud.b)}")


def test_a_host_that_is_checked_cannot_pass_the_router_by(cloud: Cloud) -> None:
    a, b = cloud.a, cloud.b
    for host, other in ((a, b), (b, a)):
        host.run(f"ip route add {other.subnet} via {_address(other)}")  # one link, as host-gw would
    try:
        cloud.apply({}, {a, b})
        assert a.pings(b)
        cloud.apply({}, {a})
        assert not a.pings(b)
    finally:
        for host, other in ((a, b), (b, a)):
            host.run(f"ip route del {other.subnet}")


def test_an_instance_is_allowed_its_own_addresses_and_what_a_link_needs() -> None:
    text = rules([Instance("h1", ("198.51.100.11", "2001:db8:51::b")), Instance("h2", ("198.51.100.12",), True)])
    assert 'iifname "h1" ip saddr != { 198.51.100.11, 224.0.0.0/4, 255.255.255.255 } counter drop' in text
    assert 'oifname "h1" ip6 daddr != { 2001:db8:51::b, ff00::/8, fe80::/10, :: } counter drop' in text
    assert "h2" not in text


def test_what_a_cloud_runs_on_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moto", None)
    (problem,) = cloud_lacks("aws-vpc")
    assert problem.startswith("moto cannot be imported")
    assert "pip install 'moto[ec2]'" in problem
    assert cloud_lacks("vxlan") == ()
