"""Leases byte for byte as Go flannel v0.28.9 writes them. Expected texts were printed by its own code."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.lease import Endpoint, IPNetwork, Lease, Malformed
from flannel_core.lease_json import (
    MAX_VALUE_BYTES,
    MalformedLease,
    decode_lease,
    encode_lease,
    lease_key,
    parse_key,
)

VXLAN = b'{"VNI":1,"VtepMAC":"8a:12:34:56:78:9a"}'


def v4(subnet: str = "10.5.43.0/24", public_ip: str = "192.0.2.12", data: bytes | None = None) -> Endpoint:
    return Endpoint(ip_network(subnet), ip_address(public_ip), data)


def v6(subnet: str = "fc00:0:0:2b::/64", public_ip: str = "2001:db8::12", data: bytes | None = None) -> Endpoint:
    return Endpoint(ip_network(subnet), ip_address(public_ip), data)


def lease(backend_type: str = "", ipv4: Endpoint | None = None, ipv6: Endpoint | None = None) -> Lease:
    key = lease_key(ipv4.subnet if ipv4 else None, ipv6.subnet if ipv6 else None)
    return Lease(key, backend_type, ipv4, ipv6, created=3, revision=5, expires=100.0)


def decoded(value: bytes, key: str = "10.5.43.0-24") -> Any:
    return decode_lease(key, value, created=3, revision=5, expires=100.0)


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "key"),
    [
        ("10.0.43.0/24", None, "10.0.43.0-24"),
        ("10.5.46.0/24", "fc00:0:0:50::/64", "10.5.46.0-24&fc00:0:0:50::-64"),
        ("10.0.43.0/24", "fc00::/64", "10.0.43.0-24&fc00::-64"),
        (None, "fc00:0:0:1::/64", "0.0.0.0-0&fc00:0:0:1::-64"),
        ("10.0.0.4/30", "fd00::abcd:0:0:4/126", "10.0.0.4-30&fd00::abcd:0:0:4-126"),
    ],
)
def test_a_key_is_gos_and_is_read_back(ipv4: str | None, ipv6: str | None, key: str) -> None:
    subnets = (ip_network(ipv4) if ipv4 else None, ip_network(ipv6) if ipv6 else None)
    assert lease_key(*subnets) == key
    assert parse_key(key) == subnets


@pytest.mark.parametrize(
    "subnets",
    [
        (None, None),
        (ip_network("10.5.0.0/32"), None),
        (None, ip_network("fc00::1/128")),
        (ip_network("10.5.43.0/24"), ip_network("::ffff:10.0.0.0/112")),
        (ip_network("10.5.43.0/24"), ip_network("::10.0.0.0/112")),
    ],
)
def test_subnets_whose_key_go_could_not_read_get_none(subnets: tuple[IPNetwork | None, IPNetwork | None]) -> None:
    with pytest.raises(ValueError):
        lease_key(*subnets)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "config",
        "10.5.43.0",
        "10.5.43.0/24",
        "10.5.43.0-32",
        "10.5.43.0-99999999999999999999999999",
        "10.5.43-24",
        "10.5.256.0-24",
        "10.5.043.0-24",
        "10.5.43.7-24",
        "0.0.0.0-0",
        "10.5.46.0-24&fc00-0-0-50---64",
        "10.5.46.0-24&FC00::-64",
        "10.5.46.0-24&fc00::-128",
        "10.5.46.0-24&fc00::1-64",
        "10.5.46.0-24&12:-64",
        "10.5.46.0-24&1.2.3.4-24",
        "x10.5.43.0-24",
        "10.5.43.0-24x",
        "10.5.43.0-24\n",
        "\u0661\u0660.5.43.0-24",
        "\x1b[31m10.5.43.0-24",
        "x" * 100_000,
    ],
    ids=lambda key: repr(key[:30]),
)
def test_a_key_that_names_no_subnet_is_malformed(key: str) -> None:
    with pytest.raises(MalformedLease) as caught:
        parse_key(key)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    assert isinstance(decoded(b'{"PublicIP":"192.0.2.12","PublicIPv6":null}', key), Malformed)


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (
            lease("vxlan", v4(data=VXLAN)),
            b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"vxlan",'
            b'"BackendData":{"VNI":1,"VtepMAC":"8a:12:34:56:78:9a"}}',
        ),
        (lease("", v4()), b'{"PublicIP":"192.0.2.12","PublicIPv6":null}'),
        (lease("host-gw", v4()), b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"host-gw"}'),
        (
            lease("vxlan", v4(data=VXLAN), v6(data=VXLAN)),
            b'{"PublicIP":"192.0.2.12","PublicIPv6":"2001:db8::12","BackendType":"vxlan",'
            b'"BackendData":{"VNI":1,"VtepMAC":"8a:12:34:56:78:9a"},'
            b'"BackendV6Data":{"VNI":1,"VtepMAC":"8a:12:34:56:78:9a"}}',
        ),
        (
            lease("vxlan", None, v6(data=VXLAN)),
            b'{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::12","BackendType":"vxlan",'
            b'"BackendV6Data":{"VNI":1,"VtepMAC":"8a:12:34:56:78:9a"}}',
        ),
        (
            lease("extension", v4(data='"a <b> & c\u2028\u2029é\x7f"'.encode())),
            b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"extension",'
            b'"BackendData":"a \\u003cb\\u003e \\u0026 c\\u2028\\u2029\xc3\xa9\x7f"}',
        ),
        (
            lease('a<b>&\u2028é\x08\x01\x7f"\\', v4(data=b' [ 1.50 , "a  b" ,\n-0, {"k" :\t1e5 } ] ')),
            b'{"PublicIP":"192.0.2.12","PublicIPv6":null,'
            b'"BackendType":"a\\u003cb\\u003e\\u0026\\u2028\xc3\xa9\\b\\u0001\x7f\\"\\\\",'
            b'"BackendData":[1.50,"a  b",-0,{"k":1e5}]}',
        ),
    ],
)
def test_a_value_is_gos_to_the_byte(stored: Lease, value: bytes) -> None:
    assert encode_lease(stored) == value


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::1.2.3.4", "1.2.3.4"),
        ("::1", "::1"),
    ],
)
def test_an_ipv6_address_looks_as_go_prints_it(address: str, text: str) -> None:
    value = json.loads(encode_lease(lease("", v4(), v6(public_ip=address))))
    assert value["PublicIPv6"] == text


@pytest.mark.parametrize("data", [b"{", b"{} {}", b'"\xff"', b"[" * 5000, b'"' + b"x" * MAX_VALUE_BYTES + b'"'])
def test_data_that_would_break_gos_peers_is_never_written(data: bytes) -> None:
    with pytest.raises(ValueError):
        encode_lease(lease("vxlan", v4(data=data)))


def test_a_value_is_read_with_its_age_revision_and_expiry() -> None:
    value = b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":' + VXLAN + b"}"
    assert decoded(value) == Lease("10.5.43.0-24", "vxlan", v4(data=VXLAN), None, 3, 5, 100.0)


def test_the_key_decides_which_families_a_lease_has() -> None:
    value = b'{"PublicIP":"192.0.2.12","PublicIPv6":"2001:db8::12","BackendData":1,"BackendV6Data":2}'
    only4, only6 = decoded(value), decoded(value, "0.0.0.0-0&fc00:0:0:2b::-64")
    both = decoded(value, "10.5.43.0-24&fc00:0:0:2b::-64")
    assert (only4.ipv4, only4.ipv6) == (v4(data=b"1"), None)
    assert (only6.ipv4, only6.ipv6) == (None, v6(data=b"2"))
    assert (both.ipv4, both.ipv6) == (v4(data=b"1"), v6(data=b"2"))


def test_an_operators_value_may_spell_keys_in_any_case_and_have_others() -> None:
    value = b'{"publicip": "192.0.2.12", "BACKENDTYPE": "vxlan", "note": {"by": "me"}, "BackendData": ' + VXLAN + b"}"
    assert decoded(value) == Lease("10.5.43.0-24", "vxlan", v4(data=VXLAN), None, 3, 5, 100.0)


def test_an_address_that_is_left_out_is_the_unspecified_one() -> None:
    both = decoded(b'{"BackendType":null}', "10.5.43.0-24&fc00::-64")
    assert (both.ipv4.public_ip, both.ipv6.public_ip) == (ip_address("0.0.0.0"), ip_address("::"))


def test_null_data_is_no_data() -> None:
    assert decoded(b'{"PublicIP":"192.0.2.12","BackendData":null}').ipv4.data is None


def test_an_ipv6_address_that_go_printed_as_ipv4_is_read_back() -> None:
    both = decoded(b'{"PublicIP":"192.0.2.12","PublicIPv6":"1.2.3.4"}', "10.5.43.0-24&fc00::-64")
    assert both.ipv6.public_ip == ip_address("::ffff:1.2.3.4")


def test_data_keeps_its_bytes() -> None:
    value = b'{"PublicIP":"192.0.2.12","BackendData": { "VNI" : 1.50 } }'
    assert decoded(value).ipv4.data == b'{ "VNI" : 1.50 }'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "the value is no lease: Input data was truncated"),
        (b'{"PublicIP":"192.0', "the value is no lease: Input data was truncated"),
        (b"[]", "the value is no lease: Expected `object`, got `array`"),
        (b'{"PublicIP":5}', "the value is no lease: Expected `str | null`, got `int` - at `$.PublicIP`"),
        (
            b'{"PublicIP":"192.0.2.012"}',
            "the value is no lease: Leading zeros are not permitted in '012' in '192.0.2.012'",
        ),
        (b'{"PublicIP":"\\u001b[31m"}', "the value is no lease: Expected 4 octets in '\\x1b[31m'"),
        (b'{"PublicIPv6":"fe80::1%eth0"}', "the value is no lease: 'fe80::1%eth0' is an address with a zone"),
        (b'{"PublicIPv6":"1"}', "the value is no lease: Expected 4 octets in '1'"),
        (b'{"BackendType":"\xff"}', "the value is not UTF-8"),
        (b'{"BackendData":"\xff"}', "the value is not UTF-8"),
        (b'{"PublicIP":"' + b"x" * MAX_VALUE_BYTES + b'"}', "the value has 16399 bytes, more than 16384"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_value_that_is_no_lease_is_malformed(value: bytes, reason: str) -> None:
    key = "10.5.43.0-24&fc00::-64" if b"v6" in value else "10.5.43.0-24"
    full = value.replace(b'{"PublicIPv6"', b'{"PublicIP":"192.0.2.12","PublicIPv6"')
    assert decoded(full, key) == Malformed(key, reason, 5)


def test_a_value_that_is_nested_without_end_is_malformed() -> None:
    """How deep is too deep is the interpreter's affair; one that goes on finds the end missing."""
    found = decoded(b'{"BackendData":' + b"[" * 9000)
    assert isinstance(found, Malformed)
    assert found.reason in ("the value is nested too deep", "the value is no lease: Input data was truncated")


ADDRESS4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ADDRESS6 = st.lists(st.sampled_from([0, 0, 1, 0xFFFF, 0x2001]), min_size=8, max_size=8).map(
    lambda groups: IPv6Address(":".join(f"{group:x}" for group in groups))
)
RAW_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
).map(lambda tree: json.dumps(tree, separators=(",", ":")).encode())
ENDPOINT4 = st.builds(
    lambda bits, length, address, data: Endpoint(IPv4Network((bits, length), strict=False), address, data),
    st.integers(2**24, 2**32 - 1),
    st.integers(8, 31),
    ADDRESS4,
    st.none() | RAW_JSON,
)
ENDPOINT6 = st.builds(
    lambda bits, length, address, data: Endpoint(IPv6Network((bits, length), strict=False), address, data),
    st.integers(2**112, 2**128 - 1),
    st.integers(16, 127),
    ADDRESS6,
    st.none() | RAW_JSON,
)


@given(
    backend_type=st.text(max_size=8),
    endpoints=st.tuples(ENDPOINT4, ENDPOINT6) | st.tuples(ENDPOINT4, st.none()) | st.tuples(st.none(), ENDPOINT6),
)
def test_what_is_written_is_read_back(backend_type: str, endpoints: tuple[Endpoint | None, Endpoint | None]) -> None:
    written = lease(backend_type, *endpoints)
    found = decode_lease(written.key, encode_lease(written), created=3, revision=5, expires=100.0)
    assert isinstance(found, Lease)
    assert (found.key, found.backend_type, found.subnets) == (written.key, backend_type, written.subnets)
    assert encode_lease(found) == encode_lease(written).replace(b',"BackendData":null', b"").replace(
        b',"BackendV6Data":null', b""
    )


@given(key=st.text(max_size=40) | st.just("10.5.43.0-24&fc00::-64"), value=st.binary(max_size=80))
def test_any_bytes_are_a_lease_or_malformed(key: str, value: bytes) -> None:
    found = decoded(value, key)
    assert isinstance(found, Lease) or found.reason.isprintable()
