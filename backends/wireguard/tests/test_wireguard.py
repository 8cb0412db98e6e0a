"""What the wireguard backend wants, from values to values."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_backend_wireguard import wireguard
from flannel_backend_wireguard.wireguard import Mode, Private, WireguardBackend, WireguardData, WireguardOptions
from flannel_backend_wireguard.wireguard_objects import WireguardDevice, WireguardPeer, WireguardProcess
from flannel_core.backend import Announcement, Node, Unreachable
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lease import Endpoint, Lease
from flannel_core.netconf import parse_config
from flannel_core.objects import Address, Link, Object, Route, Tun, Wireguard
from flannel_core.secret import Secret

BOTH = b'{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00:5::/48", "Backend": {"Type": "wireguard"}}'
CONFIG = parse_config(BOTH, "net-conf.json")
OURS = "b3VycyBvdXJzIG91cnMgb3VycyBvdXJzIG91cnMgIDE="
THEIRS = "dGhlaXJzIHRoZWlycyB0aGVpcnMgdGhlaXJzIHRoZTI="
PSK = "cHNrIHBzayBwc2sgcHNrIHBzayBwc2sgcHNrIHBzayA="
PRIVATE = Private(Secret(b"p" * 32), None)


def host(ipv4: str | None = "192.0.2.1", ipv6: str | None = "2001:db8::1") -> Host:
    addresses = ip_address(ipv4) if ipv4 else None, ip_address(ipv6) if ipv6 else None
    return Host("eth0", 2, 1500, "02:00:00:00:00:01", *addresses, *addresses)


def lease(
    number: int = 2,
    ipv4: str | None = "192.0.2.2",
    ipv6: str | None = "2001:db8::2",
    *,
    ports: tuple[int, int] = (51820, 51821),
    keys: tuple[str, str] = (THEIRS, THEIRS),
) -> Lease:
    return Lease(
        f"10.5.{number}.0-24",
        "wireguard",
        (ipv4 and Endpoint(ip_network(f"10.5.{number}.0/24"), ip_address(ipv4), WireguardData(keys[0], ports[0])))
        or None,
        (ipv6 and Endpoint(ip_network(f"fc00:5:0:{number}::/64"), ip_address(ipv6), WireguardData(keys[1], ports[1])))
        or None,
    )


def node(backend: WireguardBackend, the_host: Host | None = None, private: Private = PRIVATE) -> Node:
    return Node(CONFIG, the_host or host(), Announcement(1420, private=private), lease(1, keys=(OURS, OURS)))


def backend(**options: Any) -> WireguardBackend:
    return WireguardBackend(WireguardOptions(**options))


def peers(of: WireguardBackend, lease: Lease, the_host: Host | None = None) -> list[Object | Unreachable]:
    return list(of.peer(node(of, the_host), lease))


def test_separate_devices_carry_one_family_each() -> None:
    one = backend()
    assert list(one.local(node(one))) == [
        Link("flannel-wg-v6", Wireguard(), 1420),
        WireguardDevice("flannel-wg-v6", PRIVATE.key, 51821),
        Link("flannel-wg", Wireguard(), 1420),
        WireguardDevice("flannel-wg", PRIVATE.key, 51820),
        Address("flannel-wg", "10.5.1.0/32"),
        Route("10.5.0.0/16", "flannel-wg", scope=253),
        Address("flannel-wg-v6", "fc00:5:0:1::/128"),
        Route("fc00:5::/48", "flannel-wg-v6"),
    ]
    assert peers(one, lease()) == [
        WireguardPeer("flannel-wg", THEIRS, "192.0.2.2:51820", ("10.5.2.0/24",)),
        WireguardPeer("flannel-wg-v6", THEIRS, "[2001:db8::2]:51821", ("fc00:5:0:2::/64",)),
    ]


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.IPV4, Mode.IPV6])
def test_a_shared_device_carries_both_and_listens_where_it_says(mode: Mode) -> None:
    one = backend(mode=mode)
    assert list(one.local(node(one))) == [
        Link("flannel-wg", Wireguard(), 1420),
        WireguardDevice("flannel-wg", PRIVATE.key, 51820),
        Address("flannel-wg", "10.5.1.0/32"),
        Route("10.5.0.0/16", "flannel-wg", scope=253),
        Address("flannel-wg", "fc00:5:0:1::/128"),
        Route("fc00:5::/48", "flannel-wg"),
    ]
    (peer,) = peers(one, lease())
    assert isinstance(peer, WireguardPeer)
    assert peer.allowed_ips == ("10.5.2.0/24", "fc00:5:0:2::/64")


@pytest.mark.parametrize(
    ("mode", "ours", "theirs", "endpoint"),
    [
        (Mode.IPV4, ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2"), "192.0.2.2:51820"),
        (Mode.IPV6, ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2"), "[2001:db8::2]:51821"),
        (Mode.AUTO, ("10.0.0.1", None), ("10.0.0.2", None), "10.0.0.2:51820"),
        (Mode.AUTO, (None, "fd00::1"), (None, "fd00::2"), "[fd00::2]:51821"),
        (Mode.AUTO, ("10.0.0.1", "2a00::1"), ("8.8.8.8", "2a00::2"), "8.8.8.8:51820"),
        (Mode.AUTO, ("10.0.0.1", "2a00::1"), ("10.0.0.2", "2a00::2"), "[2a00::2]:51821"),
        (Mode.AUTO, ("10.0.0.1", "fd00::1"), ("10.0.0.2", "2a00::2"), "10.0.0.2:51820"),
        (Mode.AUTO, ("10.0.0.1", "2a00::1"), ("10.0.0.2", "fd00::2"), "10.0.0.2:51820"),
        (Mode.AUTO, ("10.0.0.1", None), ("10.0.0.2", "2a00::2"), "10.0.0.2:51820"),
        (Mode.AUTO, (None, "2a00::1"), ("10.0.0.2", "2a00::2"), "[2a00::2]:51821"),
    ],
)
def test_the_mode_chooses_the_endpoint(
    mode: Mode, ours: tuple[str | None, str | None], theirs: tuple[str | None, str | None], endpoint: str
) -> None:
    (peer,) = peers(backend(mode=mode), lease(2, *theirs), host(*ours))
    assert isinstance(peer, WireguardPeer)
    assert peer.endpoint == endpoint


@pytest.mark.parametrize(
    ("mode", "ours", "theirs", "whose"),
    [
        (Mode.IPV6, ("192.0.2.1", "2a00::1"), ("192.0.2.2", None), "it has no IPv6 address"),
        (Mode.IPV6, ("192.0.2.1", None), ("192.0.2.2", "2a00::2"), "this host has no IPv6 address"),
        (Mode.IPV4, ("192.0.2.1", "2a00::1"), (None, "2a00::2"), "it has no IPv4 address"),
    ],
)
def test_a_peer_without_an_address_of_the_chosen_family_is_named(
    mode: Mode, ours: Any, theirs: Any, whose: str
) -> None:
    (said,) = peers(backend(mode=mode), lease(2, *theirs), host(*ours))
    assert isinstance(said, Unreachable)
    assert whose in said.reason
    assert "choose auto" in said.reason


def test_two_keys_cannot_be_one_peer_of_a_shared_device() -> None:
    (said,) = peers(backend(mode=Mode.AUTO), lease(keys=(THEIRS, OURS)))
    assert isinstance(said, Unreachable)
    assert len(peers(backend(), lease(keys=(THEIRS, OURS)))) == 2, "separate devices have a peer each"


def test_an_old_peer_that_names_no_port_listens_where_we_do() -> None:
    v4, v6 = peers(backend(listen_port=4000, listen_port_v6=4001), lease(ports=(0, 0)))
    assert isinstance(v4, WireguardPeer)
    assert isinstance(v6, WireguardPeer)
    assert (v4.endpoint, v6.endpoint) == ("192.0.2.2:4000", "[2001:db8::2]:4001")


def test_psk_and_keepalive_reach_every_peer() -> None:
    for peer in peers(backend(psk=PSK, keepalive=25), lease()):
        assert isinstance(peer, WireguardPeer)
        assert peer.psk == Secret(b"psk " * 8)
        assert peer.keepalive == 25
        assert "psk " not in repr(peer) + peer.describe()


def test_a_program_in_place_of_the_kernel_has_a_tun_device() -> None:
    one = backend(mode=Mode.AUTO)
    found = list(one.local(node(one, private=Private(PRIVATE.key, "/usr/bin/wireguard-go"))))
    assert found[:3] == [
        Link("flannel-wg", Tun(), 1420),
        WireguardProcess("flannel-wg", "/usr/bin/wireguard-go"),
        WireguardDevice("flannel-wg", PRIVATE.key, 51820),
    ]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (f'{{"PublicKey":"{THEIRS}","Port":51820}}', WireguardData(THEIRS, 51820)),
        (f'{{"PublicKey":"{THEIRS}"}}', WireguardData(THEIRS)),
    ],
    ids=["new", "old"],
)
def test_what_go_announces_is_understood(text: str, data: WireguardData) -> None:
    assert msgspec.json.decode(text, type=WireguardData) == data


def test_what_we_announce_is_as_go_writes_it() -> None:
    assert msgspec.json.encode(WireguardData(THEIRS, 51820)) == f'{{"PublicKey":"{THEIRS}","Port":51820}}'.encode()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"PublicKey":""}',
        '{"PublicKey":"c2hvcnQ="}',
        '{"PublicKey":"****"}',
        f'{{"PublicKey":"{"A" * 43}="}}',
        f'{{"PublicKey":"{THEIRS}","Port":65536}}',
        f'{{"PublicKey":"{THEIRS}","Port":"1"}}',
    ],
)
def test_what_is_no_key_or_port_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=WireguardData)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"psk": "short"}, "could not parse psk: "), ({"listen_port": 5, "listen_port_v6": 5}, "cannot share a port")],
)
def test_keys_of_the_configuration_that_cannot_be(options: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        WireguardOptions(**options)
    assert "short" not in str(error.value)


def test_one_port_for_a_shared_device_is_fine() -> None:
    assert backend(mode=Mode.AUTO, listen_port=5, listen_port_v6=5)


# --- an endpoint that was learnt -------------------------------------------------------------------------------------

WANTED = WireguardPeer("flannel-wg", THEIRS, "192.0.2.2:51820", ("10.5.2.0/24", "fc00::/64"))


def found(**other: Any) -> WireguardPeer:
    return msgspec.structs.replace(WANTED, **other)


def test_an_endpoint_that_the_peer_was_heard_at_is_left() -> None:
    assert WANTED.satisfied_by(found(endpoint="203.0.113.9:999", learnt=True, told="192.0.2.2:51820"))
    assert WANTED.satisfied_by(found(endpoint="203.0.113.9:999", learnt=True)), "what it was told is not remembered"


def test_an_endpoint_that_is_stale_or_foreign_is_put_back() -> None:
    assert not WANTED.satisfied_by(found(endpoint="203.0.113.9:999"))


def test_a_lease_with_another_address_counts_more_than_what_was_learnt() -> None:
    assert not WANTED.satisfied_by(found(endpoint="203.0.113.9:999", learnt=True, told="198.51.100.7:51820"))


def test_the_order_of_allowed_ips_says_nothing() -> None:
    assert WANTED.satisfied_by(found(allowed_ips=("fc00::/64", "10.5.2.0/24")))
    assert not WANTED.satisfied_by(found(allowed_ips=("10.5.2.0/24",)))


@pytest.mark.parametrize("other", [{"psk": Secret(b"x" * 32)}, {"keepalive": 1}])
def test_what_differs_is_written(other: Any) -> None:
    assert not WANTED.satisfied_by(found(**other))


# --- the key ---------------------------------------------------------------------------------------------------------


def prepared(directory: Path, *, dry_run: bool = False) -> Announcement:
    return asyncio.run(WireguardBackend(WireguardOptions(), directory).prepare(host(), None, dry_run=dry_run))


@pytest.fixture(autouse=True)
def kernel_with_wireguard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wireguard, "kernel_has_wireguard", lambda: True)


def test_a_key_is_made_once_and_only_root_may_read_it(tmp_path: Path) -> None:
    first, second = prepared(tmp_path), prepared(tmp_path)
    assert first == second
    key = tmp_path / "wgkey"
    assert key.stat().st_mode & 0o777 == 0o400
    assert len(key.read_bytes()) == 44
    assert first.mtu == 1420
    assert (first.ipv4_data.port, first.ipv6_data.port) == (51820, 51821)
    assert key.read_text() not in repr(first)


def test_the_public_key_belongs_to_the_private_one(tmp_path: Path) -> None:
    # RFC 7748, section 6.1: Alice's pair.
    (tmp_path / "wgkey").write_text("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")
    assert prepared(tmp_path).ipv4_data.public_key == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def test_a_dry_run_makes_no_file(tmp_path: Path) -> None:
    prepared(tmp_path, dry_run=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"rubbish", b"c2hvcnQ=", b"\xff" * 44])
def test_a_file_that_is_no_key_is_named_and_its_content_is_not(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wgkey").write_bytes(content)
    with pytest.raises(FlannelError, match=r"could not parse private key from file: .*wgkey") as error:
        prepared(tmp_path)
    assert "rubbish" not in str(error.value)
    assert (tmp_path / "wgkey").read_bytes() == content


def test_the_key_lies_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIREGUARD_KEY_FILE", str(tmp_path / "else" / "where"))
    prepared(tmp_path)
    assert (tmp_path / "else" / "where").exists()


def test_without_the_module_and_without_a_program_both_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wireguard, "kernel_has_wireguard", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FlannelError, match=r"`modprobe wireguard`.*the package wireguard-go"):
        prepared(tmp_path)
