"""The keys and values of the annotations are Go flannel's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from flannel_core.store import StoreError, Wish
from flannel_store_kubernetes.annotations import Said, key, key_prefix, to_say

MAC4, MAC6 = b'{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}', b'{"VNI":1,"VtepMAC":"06:00:00:00:00:01"}'


def wish(backend_type: str, **more: Any) -> Wish:
    return Wish(public_ipv4=IPv4Address("192.0.2.1"), public_ipv6=None, backend_type=backend_type, **more)


@pytest.mark.parametrize(
    ("prefix", "written"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/public-ip"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/public-ip"),
        ("foo.bar/baz", "foo.bar/baz-public-ip"),
        ("foo.bar/baz-", "foo.bar/baz-public-ip"),
    ],
)
def test_a_prefix_is_completed_as_by_go(prefix: str, written: str) -> None:
    assert key(key_prefix(prefix), "public_ip") == written


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("a.b/c/d", "prefix can contain at most single slash"),
        ("", "prefix must be in a format: fqdn/"),
        ("flannel", "prefix must be in a format: fqdn/"),
        ("flannel.example.com/Blue", "prefix must be in a format: fqdn/"),
        ("a b", "prefix must be in a format: fqdn/"),
    ],
)
def test_a_prefix_that_is_none_is_refused_with_gos_sentence_and_the_cure(prefix: str, sentence: str) -> None:
    with pytest.raises(StoreError, match="write --kube-annotation-prefix=") as refused:
        key_prefix(prefix)
    assert sentence in str(refused.value)
    assert f"--kube-annotation-prefix={prefix}" in str(refused.value)


def test_vxlan_in_one_family_says_four_things() -> None:
    assert to_say(Said(), wish("vxlan", ipv4_data=MAC4)) == {
        "kube_subnet_manager": "true",
        "backend_type": "vxlan",
        "backend_data": MAC4.decode(),
        "public_ip": "192.0.2.1",
    }


def test_vxlan_in_both_families_says_six() -> None:
    both = Wish(IPv4Address("192.0.2.1"), IPv6Address("2001:DB8:0:0::1"), "vxlan", MAC4, MAC6)
    said = to_say(Said(), both)
    assert (said["public_ipv6"], said["backend_v6_data"]) == ("2001:db8::1", MAC6.decode())
    assert len(said) == 6


def test_vxlan_without_ipv4_says_nothing_of_ipv4_and_host_gw_says_unspecified() -> None:
    ipv6 = Wish(None, IPv6Address("2001:db8::1"), "vxlan", None, MAC6)
    assert to_say(Said(), ipv6).keys() == {"kube_subnet_manager", "backend_type", "public_ipv6", "backend_v6_data"}
    told = to_say(Said(), Wish(None, IPv6Address("2001:db8::1"), "host-gw"))
    assert (told["public_ip"], told["backend_data"], told["backend_v6_data"]) == ("0.0.0.0", "null", "null")


@pytest.mark.parametrize("backend_type", ["", "ipip"])
def test_what_go_has_no_ipv6_for_says_nothing_of_it(backend_type: str) -> None:
    said = to_say(Said(), Wish(IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), backend_type))
    assert said == {
        "kube_subnet_manager": "true",
        "backend_type": backend_type,
        "backend_data": "null",
        "public_ip": "192.0.2.1",
    }


def test_data_is_spelt_as_by_go() -> None:
    assert to_say(Said(), wish("extension", ipv4_data=b'"<a> & b"'))["backend_data"] == r'"\u003ca\u003e \u0026 b"'


def test_what_is_said_already_is_not_said_again() -> None:
    said = Said("true", "vxlan", MAC4.decode(), public_ip="192.0.2.1")
    assert to_say(said, wish("vxlan", ipv4_data=MAC4)) == {}
    assert to_say(said, wish("vxlan", ipv4_data=MAC6)) == {"backend_data": MAC6.decode()}


def test_an_empty_backend_type_is_written_with_the_rest_but_not_for_its_own_sake() -> None:
    said = Said("true", None, "null", public_ip="192.0.2.1")
    assert to_say(said, wish("")) == {}
    assert to_say(Said("true", None, "null", public_ip="192.0.2.2"), wish("")) == {
        "backend_type": "",
        "public_ip": "192.0.2.1",
    }


def test_an_operators_overwrite_is_published_in_place_of_the_address() -> None:
    said = Said(public_ip_overwrite="198.51.100.7", public_ipv6_overwrite="2001:db8::7")
    told = to_say(said, Wish(IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), "host-gw"))
    assert (told["public_ip"], told["public_ipv6"]) == ("198.51.100.7", "2001:db8::7")


def test_an_overwrite_that_is_published_already_is_not_written_again() -> None:
    said = Said("true", "vxlan", MAC4.decode(), public_ip="198.51.100.7", public_ip_overwrite="198.51.100.7")
    assert to_say(said, wish("vxlan", ipv4_data=MAC4)) == {}
