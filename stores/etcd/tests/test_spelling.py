"""What stands in etcd is, byte for byte, what Go flannel v0.28.9 writes there."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from flannel_core.conformance.stores import net_conf
from flannel_core.store import Request, StoreError, Wish
from flannel_store_etcd.endpoints import Tls, parse_endpoints
from flannel_store_etcd.keys import Keys
from flannel_store_etcd.rpc import prefix_end


@pytest.mark.parametrize(
    ("prefix", "config"),
    [
        ("/coreos.com/network", b"/coreos.com/network/config"),
        ("/coreos.com/network/", b"/coreos.com/network/config"),
        ("//coreos.com//network//", b"/coreos.com/network/config"),
        ("coreos.com/network", b"coreos.com/network/config"),
        ("/a/../b/./c", b"/b/c/config"),
        ("/", b"/config"),
        ("", b"config"),
        ("/with space/%2f/ünï[c]*'\"$", "/with space/%2f/ünï[c]*'\"$/config".encode()),
        ("/\udcff", b"/\xff/config"),
    ],
)
def test_a_prefix_is_joined_as_go_joins_it(prefix: str, config: bytes) -> None:
    keys = Keys(prefix)
    assert keys.config == config
    assert keys.subnets == config.removesuffix(b"config") + b"subnets/"
    assert keys.lease("10.5.43.0-24") == keys.subnets + b"10.5.43.0-24"
    assert keys.name(keys.lease("10.5.43.0-24&fc00::-64")) == "10.5.43.0-24&fc00::-64"


@pytest.mark.parametrize(("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")])
def test_the_end_of_a_range_is_the_first_key_after_it(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


V4 = {"public_ipv4": IPv4Address("192.0.2.12"), "public_ipv6": None}
V6 = {"public_ipv4": None, "public_ipv6": IPv6Address("2001:db8::c")}
BOTH = {"public_ipv4": IPv4Address("192.0.2.12"), "public_ipv6": IPv6Address("2001:db8::c")}
SUBNET4, SUBNET6 = IPv4Network("10.5.46.0/24"), IPv6Network("fd00:5:0:50::/64")
CONFIG4 = net_conf()
CONFIG6 = net_conf(EnableIPv4=False, EnableIPv6=True, IPv6Network="fd00:5::/48")
CONFIG46 = net_conf(EnableIPv6=True, IPv6Network="fd00:5::/48")


@pytest.mark.parametrize(
    ("config", "wish", "key", "value"),
    [
        pytest.param(
            CONFIG4,
            Wish(**V4, backend_type="vxlan", ipv4_data=b'{"VNI":1,"VtepMAC":"8a:3b:c0:11:22:33"}'),
            "10.5.46.0-24",
            b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"vxlan",'
            b'"BackendData":{"VNI":1,"VtepMAC":"8a:3b:c0:11:22:33"}}',
            id="vxlan",
        ),
        pytest.param(
            CONFIG46,
            Wish(**BOTH, backend_type="vxlan", ipv4_data=b'{"VNI":1}', ipv6_data=b'{"VNI":1, "VtepMAC":"a<b"}'),
            "10.5.46.0-24&fd00:5:0:50::-64",
            b'{"PublicIP":"192.0.2.12","PublicIPv6":"2001:db8::c","BackendType":"vxlan",'
            b'"BackendData":{"VNI":1},"BackendV6Data":{"VNI":1,"VtepMAC":"a\\u003cb"}}',
            id="vxlan, dual stack",
        ),
        pytest.param(
            CONFIG4,
            Wish(**V4, backend_type="host-gw"),
            "10.5.46.0-24",
            b'{"PublicIP":"192.0.2.12","PublicIPv6":null,"BackendType":"host-gw"}',
            id="host-gw",
        ),
        pytest.param(
            CONFIG4, Wish(**V4), "10.5.46.0-24", b'{"PublicIP":"192.0.2.12","PublicIPv6":null}', id="udp, alloc"
        ),
        pytest.param(
            CONFIG6,
            Wish(**V6, backend_type="vxlan", ipv6_data=b'{"VNI":1}'),
            "0.0.0.0-0&fd00:5:0:50::-64",
            b'{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::c","BackendType":"vxlan","BackendV6Data":{"VNI":1}}',
            id="IPv6 only",
        ),
    ],
)
async def test_a_lease_looks_as_go_writes_it(
    agent: Any, raw: Any, prefix: str, config: Any, wish: Wish, key: str, value: bytes
) -> None:
    before = tuple(subnet for subnet, on in ((SUBNET4, config.ipv4), (SUBNET6, config.ipv6)) if on)
    wish = Wish(**{**{name: getattr(wish, name) for name in wish.__struct_fields__}, "previous_subnets": before})
    async with agent() as store:
        await store.acquire(Request(config, wish))
    (record,) = raw.kvs(prefix.encode())
    assert raw.get(prefix.encode()) == {f"{prefix}/subnets/{key}".encode(): value}
    remaining = raw.ask("lease/timetolive", ID=record["lease"])
    assert remaining["grantedTTL"] == "86400"


async def test_the_configuration_is_read_where_go_reads_it(agent: Any, raw: Any, prefix: str) -> None:
    raw.put(f"{prefix}/config".encode(), b'{"Network":"10.5.0.0/16"}')
    async with agent(prefix=f"/{prefix}//") as store:
        text = await anext(aiter(store.config()))
    assert text.text == b'{"Network":"10.5.0.0/16"}'
    assert text.source == f"{prefix}/config"


@pytest.mark.parametrize(
    "odd", ["with space", "%s%n", "[a-z]+(", "ünï", "a'b\"c", "*", "x\ny", "-", "..a", "\udcff\udcfe"]
)
async def test_a_prefix_may_have_odd_characters(agent: Any, raw: Any, prefix: str, odd: str) -> None:
    async with agent(prefix=f"{prefix}/{odd}") as store:
        await store.set_config(b"{}")
        lease = await store.acquire(Request(CONFIG4, Wish(**V4)))
        assert (await anext(aiter(store.leases()))).leases[0].key == lease.key
        assert store.location.isprintable()
    root = os.fsencode(f"{prefix}/{odd}")
    assert set(raw.get(root)) == {root + b"/config", root + b"/subnets/" + lease.key.encode()}


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://127.0.0.1:4001,http://127.0.0.1:2379", ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]),
        (" https://etcd.example:2379 ,", ["https://etcd.example:2379"]),
        ("192.0.2.1:2379", ["http://192.0.2.1:2379"]),
        ("http://[2001:db8::1]:2379/", ["http://[2001:db8::1]:2379"]),
        ("http://etcd", ["http://etcd:2379"]),
        ("http://a:1,http://a:1", ["http://a:1"]),
    ],
)
def test_endpoints_are_urls_between_commas(text: str, urls: list[str]) -> None:
    assert [str(endpoint) for endpoint in parse_endpoints(text, secure=False)] == urls


def test_an_endpoint_without_a_scheme_is_secure_where_certificates_are_given() -> None:
    assert str(parse_endpoints("192.0.2.1:2379", secure=True)[0]) == "https://192.0.2.1:2379"


@pytest.mark.parametrize("text", ["", ",", "http://", "ftp://a:1", "http://a:port", "http://a:99999", "http://[::1"])
def test_what_is_no_endpoint_is_refused_by_name(text: str) -> None:
    with pytest.raises(StoreError, match="--etcd-endpoints"):
        parse_endpoints(text, secure=False)


@pytest.mark.parametrize(
    ("cert", "key", "lacking"), [("c.pem", "", "--etcd-keyfile"), ("", "k.pem", "--etcd-certfile")]
)
def test_a_certificate_and_its_key_go_together(cert: str, key: str, lacking: str) -> None:
    with pytest.raises(StoreError, match=f"without {lacking}"):
        Tls("", cert, key)
