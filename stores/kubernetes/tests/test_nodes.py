"""What a node stands for among the leases."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.lease import Endpoint, Lease, Malformed
from flannel_core.lease_json import MAX_VALUE_BYTES
from flannel_store_kubernetes.nodes import BadPodCidrs, Dialect, Node, Spec
from flannel_store_kubernetes.nodes import pod_cidrs as first_of_each_family

PREFIX = "flannel.alpha.coreos.com"
DIALECT = Dialect(PREFIX)
DATA4, DATA6 = '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}', '{"VNI":1,"VtepMAC":"06:00:00:00:00:01"}'
SAID = {"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-data": DATA4, "public-ip": "192.0.2.1"}
SAID6 = {"backend-v6-data": DATA6, "public-ipv6": "2001:db8::1"}


def entry(pod_cidrs: list[str], said: dict[str, Any], **spec: Any) -> Lease | Malformed | None:
    value = {
        "metadata": {
            "name": "n1",
            "creationTimestamp": "2026-11-24T10:00:00Z",
            "resourceVersion": "812",
            "annotations": {f"{PREFIX}/{key}": text for key, text in said.items()} | {"other/public-ip": "nowhere"},
        },
        "spec": {"podCIDRs": pod_cidrs, **spec},
    }
    return DIALECT.entry(DIALECT.node(msgspec.json.encode(value)))


def test_a_node_of_one_family_is_a_lease_of_its_name() -> None:
    assert entry(["10.5.1.0/24"], SAID) == Lease(
        "n1",
        "vxlan",
        Endpoint(IPv4Network("10.5.1.0/24"), IPv4Address("192.0.2.1"), DATA4.encode()),
        created=1795514400,
        revision=812,
    )


def test_a_node_of_both_families_has_two_endpoints_in_whatever_order_its_pod_cidrs_are() -> None:
    for pod_cidrs in (["10.5.1.0/24", "fd00:5:0:1::/64"], ["fd00:5:0:1::/64", "10.5.1.0/24"]):
        lease = entry(pod_cidrs, SAID | SAID6)
        assert isinstance(lease, Lease)
        assert lease.ipv4 == Endpoint(IPv4Network("10.5.1.0/24"), IPv4Address("192.0.2.1"), DATA4.encode())
        assert lease.ipv6 == Endpoint(IPv6Network("fd00:5:0:1::/64"), IPv6Address("2001:db8::1"), DATA6.encode())


def test_a_family_that_the_node_does_not_announce_is_left_out_and_the_other_stands() -> None:
    lease = entry(["10.5.1.0/24", "fd00:5:0:1::/64"], SAID)
    assert isinstance(lease, Lease)
    assert (lease.ipv4 is not None, lease.ipv6) == (True, None)


def test_pod_cidrs_may_be_of_any_length_and_have_host_bits() -> None:
    for text, network in (
        ("10.5.1.7/26", "10.5.1.0/26"),
        ("10.5.0.0/17", "10.5.0.0/17"),
        ("10.5.9.9/32", "10.5.9.9/32"),
    ):
        lease = entry([text], SAID)
        assert isinstance(lease, Lease)
        assert lease.subnets == (IPv4Network(network),)


def test_an_old_cluster_has_one_pod_cidr() -> None:
    lease = entry([], SAID, podCIDR="10.5.1.0/24")
    assert isinstance(lease, Lease)
    assert lease.subnets == (IPv4Network("10.5.1.0/24"),)


@pytest.mark.parametrize("said", [{}, {**SAID, "kube-subnet-manager": "false"}], ids=["none", "false"])
def test_a_node_without_flannel_is_no_lease(said: dict[str, str]) -> None:
    assert entry(["10.5.1.0/24"], said) is None


@pytest.mark.parametrize("null", [{}, {"metadata": {"name": "n1", "annotations": None}, "spec": {"podCIDRs": None}}])
def test_a_node_that_has_nothing_yet_is_no_lease(null: dict[str, Any]) -> None:
    assert DIALECT.entry(DIALECT.node(msgspec.json.encode({"metadata": {"name": "n1"}} | null))) is None


@pytest.mark.parametrize(
    ("pod_cidrs", "said", "reason"),
    [
        ([], {}, "the node has no podCIDR"),
        (["10.5.1.0/24"], {"public-ip": ""}, "lacks the annotation flannel.alpha.coreos.com/public-ip"),
        (["fd00::/64"], {}, "lacks the annotation flannel.alpha.coreos.com/public-ipv6"),
        (["10.5.1.0/24"], {"public-ip": "here\x1b[1m"}, r"public-ip is 'here\x1b[1m', which is no IPv4 address"),
        (["fd00::/64"], {"public-ipv6": "192.0.2.1"}, "public-ipv6 is '192.0.2.1', which is no IPv6 address"),
        (["fd00::/64"], {"public-ipv6": "fe80::1%eth0"}, "public-ipv6 is 'fe80::1%eth0', which is no IPv6 address"),
        (["10.5.1.0/24"], {"backend-data": "x" * (MAX_VALUE_BYTES + 1)}, "backend-data has 16385 characters"),
        (["10.5.1.0/24"], {"backend-type": "x" * (MAX_VALUE_BYTES + 1)}, "backend-type has 16385 characters"),
        (["10.5.1.0/24", "fd00::/64", "10.5.2.0/24"], {}, "pod cidrs should be IPv4/IPv6 only or dualstack"),
        (["10.5.1.0"], {}, "has the pod cidr '10.5.1.0', which lacks its length"),
        (["10.5.1.0/33"], {}, "has the pod cidr '10.5.1.0/33', which is none"),
        (["ten"], {}, "has the pod cidr 'ten', which is none"),
    ],
)
def test_a_node_that_says_what_it_cannot_mean_is_malformed_and_named(
    pod_cidrs: list[str], said: dict[str, str], reason: str
) -> None:
    found = entry(pod_cidrs, SAID | said)
    assert isinstance(found, Malformed)
    assert (found.key, found.revision) == ("n1", 812)
    assert reason in found.reason


def test_data_that_is_null_is_none() -> None:
    for text in ("null", ""):
        lease = entry(["10.5.1.0/24"], SAID | {"backend-data": text})
        assert isinstance(lease, Lease)
        assert lease.ipv4 is not None
        assert lease.ipv4.data is None


def test_a_node_of_the_wrong_shape_is_malformed_and_the_others_of_the_list_are_not() -> None:
    found = DIALECT.nodes(
        b'[{"metadata":{"name":"a"}},{"metadata":{"name":"b","resourceVersion":"7","annotations":'
        b'{"flannel.alpha.coreos.com/public-ip":1}}},{"metadata":{"name":"c"}}]'
    )
    a, b, c = found
    assert isinstance(a, Node)
    assert isinstance(b, Malformed)
    assert isinstance(c, Node)
    assert (b.key, b.revision) == ("b", 7)
    assert "Expected `str" in b.reason


def test_another_prefix_is_another_fabric() -> None:
    text = msgspec.json.encode({"metadata": {"name": "n1", "annotations": {f"{PREFIX}/kube-subnet-manager": "true"}}})
    assert Dialect("blue.example.com").entry(Dialect("blue.example.com").node(text)) is None


def test_a_node_tells_when_it_was_made_or_zero() -> None:
    for text, seconds in (("2026-11-24T10:00:00Z", 1795514400), ("2026-11-24T12:00:00+02:00", 1795514400), ("", 0)):
        node = DIALECT.node(msgspec.json.encode({"metadata": {"name": "n1", "creationTimestamp": text}}))
        assert isinstance(node, Node)
        assert node.created == seconds


NEARLY = st.lists(
    st.sampled_from(
        ["10", "5", "0", "010", "256", ".", ".", ".", "/", "24", "33", "+8", " ", "\0", "\u0663", "/255.0.0.0"]
    ),
    max_size=10,
).map("".join)


@given(st.from_regex(r"\d{1,3}(\.\d{1,3}){3}(/\d{1,3})?", fullmatch=True) | NEARLY)
def test_ipv4_is_read_as_pythons_own_parsers_read_it(text: str) -> None:
    def outcome(read: Any) -> Any:
        try:
            return read()
        except ValueError:
            return None

    assert outcome(lambda: DIALECT.address(4, text, "public_ip")) == outcome(lambda: IPv4Address(text))
    network = outcome(lambda: IPv4Network(text, strict=False)) if "/" in text else None
    try:
        found = first_of_each_family(Spec(pod_cidrs=(text,))).get(4)
    except BadPodCidrs:
        found = None
    assert found == network
