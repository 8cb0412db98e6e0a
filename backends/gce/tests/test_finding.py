"""Where this host is in Google Cloud: asked of the lab's metadata server and of its compute API, which is a fake that
holds each request against the SDK's discovery document."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import pytest

from flannel_backend_gce.compute import PERMISSIONS
from flannel_backend_gce.gce import Found, GceBackend
from flannel_backend_gce.options import GceOptions
from flannel_core.backend import Announcement
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lab import Lab
from flannel_core.lab.gce.lab_cloud import GceLabCloud
from flannel_core.lab.network import Machine, inside

INSTANCE = "projects/flannel-lab/zones/europe-west1-b/instances/h1"


class Network:
    """One instance in it, without an agent."""

    def __init__(self, lab: Lab) -> None:
        cloud = lab.cloud("gce")
        assert isinstance(cloud, GceLabCloud)
        self.lab = lab
        self.cloud = cloud
        (self.machine,) = lab.machines(1, ipv6=True)
        self.environment = cloud.join(self.machine)

    def announce(
        self,
        options: Mapping[str, Any] = {},
        ipv4: str | None = "",
        ipv6: str | None = "",
        *,
        on: Machine | None = None,
        mtu: int = 1500,
    ) -> Announcement:
        """By what is the machine's own where nothing else is given."""
        machine = on or self.machine
        assert machine.ipv4
        own = machine.ipv6.ip if machine.ipv6 else None
        four = machine.ipv4.ip if ipv4 == "" else ip_address(ipv4) if ipv4 else None
        six = own if ipv6 == "" else ip_address(ipv6) if ipv6 else None
        host = Host("eth0", 2, mtu, "02:00:00:00:00:01", four, six, four, six)
        endpoint = str(self.cloud.options["Endpoint"])
        backend = GceBackend(GceOptions(**{"endpoint": endpoint, **options}))
        return inside(machine.namespace, lambda: asyncio.run(backend.prepare(host, None, dry_run=True)))


@pytest.fixture(scope="module")
def lab_network() -> Iterator[Network]:
    with Lab() as lab:
        yield Network(lab)


@pytest.fixture
def network(lab_network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    for name, value in lab_network.environment.items():
        monkeypatch.setenv(name, value)
    yield lab_network
    lab_network.cloud.heal()
    assert lab_network.cloud.faults() == []


def test_the_instance_its_project_and_its_network_are_found(network: Network) -> None:
    found = network.announce().private
    assert found == Found(INSTANCE, "flannel-lab", "projects/flannel-lab/global/networks/default", 1460)
    assert not found.is_shared


@pytest.mark.parametrize(("mtu", "announced"), [(1500, 1460), (1400, 1400)])
def test_the_mtu_is_the_lower_of_the_networks_and_the_interfaces(network: Network, mtu: int, announced: int) -> None:
    assert network.announce(mtu=mtu).mtu == announced


def test_an_address_of_either_family_tells_the_interface(network: Network) -> None:
    assert network.announce(ipv4=None).private.instance == INSTANCE
    assert network.announce(ipv6=None).private.instance == INSTANCE


def test_an_address_of_none_of_the_instances_interfaces_is_named_with_those_it_has(network: Network) -> None:
    with pytest.raises(FlannelError, match=r"h1 has no network interface with 192\.0\.2\.77, it has: nic0") as raised:
        network.announce(ipv4="192.0.2.77", ipv6=None)
    assert "198.51.100.11" in str(raised.value)
    assert "--iface" in str(raised.value)


def test_an_instance_that_may_not_forward_is_named_with_the_cure(network: Network) -> None:
    network.cloud.forward("h1", False)
    try:
        with pytest.raises(FlannelError, match=r"canIpForward is false.*update-from-file h1 --zone europe-west1-b"):
            network.announce()
    finally:
        network.cloud.forward("h1", True)


def test_a_host_without_a_service_account_is_told_to_get_one(network: Network) -> None:
    network.cloud.process.call("metadata", service_account=False)
    try:
        with pytest.raises(FlannelError, match=r"no credentials \(.*give the instance a service account"):
            network.announce()
    finally:
        network.cloud.process.call("metadata", service_account=True)


@pytest.mark.parametrize("method", ["instances.get", "networks.get"])
def test_a_permission_that_is_lacking_is_named_with_all_that_are_needed(network: Network, method: str) -> None:
    network.cloud.refuse(method, "forbidden", 403)
    with pytest.raises(
        FlannelError, match=rf"compute\.{method}: 403 forbidden: Required 'compute\.{method}'"
    ) as raised:
        network.announce()
    assert all(permission in str(raised.value) for permission in PERMISSIONS)


@pytest.mark.parametrize(
    ("reason", "status", "cure"),
    [
        ("accessNotConfigured", 403, "gcloud services enable compute.googleapis.com"),
        ("authError", 401, "compare this host's clock"),
    ],
)
def test_why_the_api_refuses_is_named_with_the_cure(network: Network, reason: str, status: int, cure: str) -> None:
    network.cloud.refuse("*", reason, status)
    with pytest.raises(FlannelError, match=f"{status} {reason}: .*{cure}"):
        network.announce()


def test_an_api_that_is_away_is_named(network: Network) -> None:
    with pytest.raises(FlannelError, match=r"compute\.instances\.get: .*refused"):
        network.announce({"endpoint": "http://198.51.100.1:9"})


def test_an_endpoint_that_is_no_api_is_named(network: Network) -> None:
    with pytest.raises(FlannelError, match=r"403: what answers is not the compute API .*; see Backend\.Endpoint"):
        network.announce({"endpoint": "http://169.254.169.254"})


def test_a_host_without_a_metadata_server_is_told_so(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "198.51.100.1:9")
    with pytest.raises(FlannelError, match=r"198\.51\.100\.1:9: no metadata server \(Connection refused\)"):
        network.announce()


def test_a_server_that_is_no_metadata_server_is_told_from_one(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "198.51.100.1:5001")
    with pytest.raises(FlannelError, match=r"404 .*is it the metadata server of Compute Engine\?"):
        network.announce()
    network.cloud.forget_requests()  # which were none of the compute API's


def test_in_a_shared_vpc_the_routes_are_in_the_networks_project(lab_network: Network, network: Network) -> None:
    shared = network.cloud.share("flannel-host")
    (machine,) = network.lab.machines(1)
    network.cloud.join(machine)
    announcement = network.announce(on=machine)
    found = announcement.private
    assert found.is_shared
    assert (found.project, found.network) == ("flannel-host", shared)
    assert found.instance == "projects/flannel-lab/zones/europe-west1-b/instances/h2"
    assert any("a shared VPC" in note for note in announcement.notes)
