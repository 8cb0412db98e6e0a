"""How a device looks on the wire: ours held against pyroute2's in both directions; the program's protocol against
itself, and against what is no answer."""

from __future__ import annotations

import base64
import struct
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from flannel_backend_wireguard import kernel_device, program_device
from flannel_backend_wireguard.device import PeerChange
from flannel_backend_wireguard.keys import key_bytes, key_text
from flannel_backend_wireguard.wireguard_objects import WireguardPeer
from flannel_core.errors import FlannelError
from flannel_core.netlink.message import MalformedMessage, attribute_text, attributes
from flannel_core.secret import Secret

KEYS = st.binary(min_size=32, max_size=32).map(key_text)
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)
ENDPOINTS = st.builds(
    lambda address, port: f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}",
    ADDRESSES,
    st.integers(0, 65535),
)
NETWORKS = st.builds(
    lambda address, length: str(ip_network((address, length % (address.max_prefixlen + 1)), strict=False)),
    ADDRESSES,
    st.integers(0, 128),
)
PEERS = st.builds(
    WireguardPeer,
    st.just("flannel-wg"),
    KEYS,
    ENDPOINTS,
    st.lists(NETWORKS, min_size=1, max_size=3, unique=True).map(tuple),
    st.none() | st.binary(min_size=32, max_size=32).filter(any).map(Secret),
    st.integers(0, 65535),
)


def message(body: bytes) -> bytes:
    """A whole netlink message of the family."""
    return struct.pack("=IHHII", 20 + len(body), 0x1F, 1, 1, 0) + struct.pack("=BBH", 1, 1, 0) + body


def told(peer: Any) -> tuple[Any, ...]:
    """A peer that pyroute2 decoded, in our words."""
    endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
    host = f"[{ip_address(endpoint['addr'])}]" if ":" in endpoint["addr"] else endpoint["addr"]
    return (
        peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(),
        f"{host}:{endpoint['port']}",
        tuple(str(ip_network(item["addr"])) for item in peer.get_attr("WGPEER_A_ALLOWEDIPS")),
        base64.b64decode(peer.get_attr("WGPEER_A_PRESHARED_KEY")),
        peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL"),
    )


@given(st.lists(PEERS, min_size=1, max_size=4, unique_by=lambda peer: peer.key))
def test_pyroute2_reads_what_we_write(peers: list[WireguardPeer]) -> None:
    name = attribute_text(kernel_device.WGDEVICE_A_IFNAME, "flannel-wg")
    (batch,) = kernel_device._batches([kernel_device.encode(PeerChange(peer)) for peer in peers])
    decoded = wgmsg(message(name + batch))
    decoded.decode()
    assert [told(peer) for peer in decoded.get_attr("WGDEVICE_A_PEERS")] == [
        (peer.key, peer.endpoint, peer.allowed_ips, peer.psk.reveal() if peer.psk else bytes(32), peer.keepalive)
        for peer in peers
    ]


@given(st.lists(PEERS, min_size=1, max_size=4, unique_by=lambda peer: peer.key), st.integers(0, 65535))
def test_we_read_what_the_kernel_would_say_of_what_we_write(peers: list[WireguardPeer], port: int) -> None:
    """The kernel answers in the form that it is asked in: pyroute2's test above says that this form is right."""
    head = kernel_device.attribute(kernel_device.WGDEVICE_A_LISTEN_PORT, struct.pack("=H", port))
    found = kernel_device.decode(
        [
            attributes(head + batch)
            for batch in kernel_device._batches([kernel_device.encode(PeerChange(peer)) for peer in peers])
        ]
    )
    assert found.port == port
    assert [
        (key_text(peer.key), peer.endpoint, peer.allowed_ips, peer.psk, peer.keepalive) for peer in found.peers
    ] == [(peer.key, peer.endpoint, peer.allowed_ips, peer.psk, peer.keepalive) for peer in peers]


def test_a_thousand_peers_are_a_few_messages_each_of_which_fits() -> None:
    peers = [
        WireguardPeer("flannel-wg", key_text(number.to_bytes(32, "big")), "192.0.2.2:51820", ("10.5.2.0/24",))
        for number in range(1, 1001)
    ]
    batches = list(kernel_device._batches([kernel_device.encode(PeerChange(peer)) for peer in peers]))
    assert max(map(len, batches)) < 65536
    assert len(batches) < 10
    assert sum(len(kernel_device.decode([attributes(batch)]).peers) for batch in batches) == 1000


def test_a_peer_that_goes_on_in_the_next_message_is_one_peer() -> None:
    first = WireguardPeer("flannel-wg", key_text(b"k" * 32), "192.0.2.2:51820", ("10.5.2.0/24",))
    second = WireguardPeer("flannel-wg", key_text(b"k" * 32), "192.0.2.2:51820", ("fc00::/64",))
    batches = [next(kernel_device._batches([kernel_device.encode(PeerChange(peer))])) for peer in (first, second)]
    (peer,) = kernel_device.decode([attributes(batch) for batch in batches]).peers
    assert peer.allowed_ips == ("10.5.2.0/24", "fc00::/64")


@given(st.binary(max_size=200))
def test_rubbish_from_the_kernel_is_called_so(rubbish: bytes) -> None:
    try:
        kernel_device.decode([{kernel_device.WGDEVICE_A_PEERS: rubbish}])
    except MalformedMessage:
        pass


@given(PEERS)
def test_the_programs_protocol_round_trips(peer: WireguardPeer) -> None:
    lines = list(program_device.encode(PeerChange(peer)))
    assert f"public_key={key_bytes(peer.key).hex()}" == lines[0]
    answer = "\n".join(["listen_port=7", *(line for line in lines if not line.startswith("replace")), "errno=0", ""])
    found = program_device.decode(answer)
    assert found.port == 7
    (same,) = found.peers
    assert (key_text(same.key), same.endpoint, same.allowed_ips, same.psk, same.keepalive) == (
        peer.key,
        peer.endpoint,
        peer.allowed_ips,
        peer.psk,
        peer.keepalive,
    )


@pytest.mark.parametrize("text", ["public_key=xyz", "listen_port=x", "public_key=00\nrx_bytes=much"])
def test_rubbish_from_a_program_is_called_so(text: str) -> None:
    with pytest.raises(FlannelError, match="cannot be read"):
        program_device.decode(text)
