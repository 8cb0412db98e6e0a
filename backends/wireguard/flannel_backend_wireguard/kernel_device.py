"""WireGuard in the kernel: generic netlink, WG_CMD_* and WG*_A_* of linux/wireguard.h."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6
from struct import Struct
from struct import error as StructError

import msgspec

from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.netlink.message import (
    MalformedMessage,
    attribute,
    attribute_text,
    attribute_u32,
    attributes,
    nested,
    u16,
)
from flannel_core.netlink.socket import NetlinkError
from flannel_core.secret import Secret

from .device import GENL_NAME, FoundDevice, FoundPeer, NoDevice, PeerChange
from .keys import key_bytes
from .wireguard_objects import WireguardDevice, WireguardPeer

WG_CMD_GET_DEVICE = 0
WG_CMD_SET_DEVICE = 1
WGDEVICE_A_IFNAME = 2
WGDEVICE_A_PRIVATE_KEY = 3
WGDEVICE_A_LISTEN_PORT = 6
WGDEVICE_A_PEERS = 8
WGPEER_A_PUBLIC_KEY = 1
WGPEER_A_PRESHARED_KEY = 2
WGPEER_A_FLAGS = 3
WGPEER_A_ENDPOINT = 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL = 5
WGPEER_A_LAST_HANDSHAKE_TIME = 6
WGPEER_A_RX_BYTES = 7
WGPEER_A_TX_BYTES = 8
WGPEER_A_ALLOWEDIPS = 9
WGPEER_F_REMOVE_ME = 1
WGPEER_F_REPLACE_ALLOWEDIPS = 2
WGALLOWEDIP_A_FAMILY = 1
WGALLOWEDIP_A_IPADDR = 2
WGALLOWEDIP_A_CIDR_MASK = 3

MOST_BYTES = 32_000
"""Of peers in one message: an attribute's length is 16 bits wide, and half of that leaves room for the rest."""
NO_KEY = bytes(32)

_U16 = Struct("=H")
_SOCKADDR_IN = Struct("=H2s4s8x")  # linux/in.h: sin_family, sin_port, sin_addr
_SOCKADDR_IN6 = Struct("=H2s4x16s4x")  # linux/in6.h: sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id
_TIMESPEC = Struct("=qq")
_U64 = Struct("=Q")


class KernelDevices:
    """The devices of the network namespace that the calling thread is in."""

    def read(self, device: str) -> FoundDevice:
        """Raises NoDevice, NetlinkError, MalformedMessage."""
        with _asking(), GenericSocket(GENL_NAME) as kernel:
            return decode(kernel.dump(WG_CMD_GET_DEVICE, attribute_text(WGDEVICE_A_IFNAME, device)))

    def set_device(self, wanted: WireguardDevice) -> None:
        key = attribute(WGDEVICE_A_PRIVATE_KEY, wanted.key.reveal())
        port = attribute(WGDEVICE_A_LISTEN_PORT, _U16.pack(wanted.port))
        with _asking(), GenericSocket(GENL_NAME) as kernel:
            kernel.request(WG_CMD_SET_DEVICE, attribute_text(WGDEVICE_A_IFNAME, wanted.device) + key + port)

    def set_peers(self, device: str, puts: Sequence[PeerChange], removes: Sequence[WireguardPeer]) -> None:
        name = attribute_text(WGDEVICE_A_IFNAME, device)
        peers = [_removed(peer) for peer in removes] + [encode(change) for change in puts]
        with _asking(), GenericSocket(GENL_NAME) as kernel:
            for body in _batches(peers):
                kernel.request(WG_CMD_SET_DEVICE, name + body)


class _asking:
    """Makes NoDevice of the kernel's "no such device", and of a kernel without any."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        gone = isinstance(error, NetlinkError) and error.number in (errno.ENODEV, errno.EOPNOTSUPP)
        if gone or isinstance(error, NoFamily):
            raise NoDevice from None


def _batches(peers: Sequence[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for peer in peers:
        if batch and size + len(peer) > MOST_BYTES:
            yield nested(WGDEVICE_A_PEERS, *batch)
            batch, size = [], 0
        batch.append(peer)
        size += len(peer)
    if batch:
        yield nested(WGDEVICE_A_PEERS, *batch)


def encode(change: PeerChange) -> bytes:
    """One item of WGDEVICE_A_PEERS."""
    peer = change.peer
    parts = [
        attribute(WGPEER_A_PUBLIC_KEY, key_bytes(peer.key)),
        attribute(WGPEER_A_PRESHARED_KEY, peer.psk.reveal() if peer.psk else NO_KEY),
        attribute_u32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS),
        attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, _U16.pack(peer.keepalive)),
    ]
    if not change.keep_endpoint:
        parts.append(attribute(WGPEER_A_ENDPOINT, _sockaddr(peer.endpoint)))
    parts.append(nested(WGPEER_A_ALLOWEDIPS, *map(_allowed_ip, peer.allowed_ips)))
    return nested(0, *parts)


def _removed(peer: WireguardPeer) -> bytes:
    key = attribute(WGPEER_A_PUBLIC_KEY, key_bytes(peer.key))
    return nested(0, key, attribute_u32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME))


def _allowed_ip(network: str) -> bytes:
    parsed = ip_network(network)
    return nested(
        0,
        attribute(WGALLOWEDIP_A_FAMILY, _U16.pack(AF_INET if parsed.version == 4 else AF_INET6)),
        attribute(WGALLOWEDIP_A_IPADDR, parsed.network_address.packed),
        attribute(WGALLOWEDIP_A_CIDR_MASK, bytes([parsed.prefixlen])),
    )


def _sockaddr(endpoint: str) -> bytes:
    host, _, port = endpoint.rpartition(":")
    address, number = ip_address(host.strip("[]")), int(port).to_bytes(2, "big")
    if address.version == 4:
        return _SOCKADDR_IN.pack(AF_INET, number, address.packed)
    return _SOCKADDR_IN6.pack(AF_INET6, number, address.packed)


def decode(messages: Sequence[dict[int, bytes]]) -> FoundDevice:
    """WG_CMD_GET_DEVICE's answer. A peer whose allowed IPs did not fit goes on in the next message. Raises
    MalformedMessage."""
    key: bytes | None = None
    port = 0
    peers: dict[bytes, FoundPeer] = {}
    for message in messages:
        if WGDEVICE_A_PRIVATE_KEY in message:
            key = message[WGDEVICE_A_PRIVATE_KEY]
        if WGDEVICE_A_LISTEN_PORT in message:
            port = u16(message[WGDEVICE_A_LISTEN_PORT])
        for item in _items(message.get(WGDEVICE_A_PEERS, b"")):
            peer = _decode_peer(attributes(item))
            begun = peers.get(peer.key)
            if begun is not None:
                peer = msgspec.structs.replace(begun, allowed_ips=begun.allowed_ips + peer.allowed_ips)
            peers[peer.key] = peer
    return FoundDevice(None if key is None or key == NO_KEY else Secret(key), port, tuple(peers.values()))


def _decode_peer(found: dict[int, bytes]) -> FoundPeer:
    try:
        seconds, nanoseconds = _TIMESPEC.unpack(found.get(WGPEER_A_LAST_HANDSHAKE_TIME, bytes(16)))
        (received,) = _U64.unpack(found.get(WGPEER_A_RX_BYTES, bytes(8)))
        (sent,) = _U64.unpack(found.get(WGPEER_A_TX_BYTES, bytes(8)))
        (keepalive,) = _U16.unpack(found.get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, bytes(2)))
        psk = found.get(WGPEER_A_PRESHARED_KEY, NO_KEY)
        return FoundPeer(
            found[WGPEER_A_PUBLIC_KEY],
            _endpoint(found.get(WGPEER_A_ENDPOINT, b"")),
            tuple(map(_network, _items(found.get(WGPEER_A_ALLOWEDIPS, b"")))),
            None if psk == NO_KEY else Secret(psk),
            keepalive,
            seconds + nanoseconds / 1e9,
            received,
            sent,
        )
    except (KeyError, ValueError, StructError) as error:
        raise MalformedMessage(f"a WireGuard peer that cannot be read: {error}") from error


def _items(body: bytes) -> Iterator[bytes]:
    """The values of a list's attributes, which all have type 0."""
    position = 0
    while position < len(body):
        length = _U16.unpack_from(body, position)[0] if len(body) - position >= 4 else 0
        if length < 4 or position + length > len(body):
            raise MalformedMessage(f"a netlink attribute claims {length} bytes of {len(body) - position}")
        yield body[position + 4 : position + length]
        position += (length + 3) & ~3


def _endpoint(value: bytes) -> str:
    if len(value) == _SOCKADDR_IN.size:
        _, port, address = _SOCKADDR_IN.unpack(value)
        return f"{ip_address(address)}:{int.from_bytes(port, 'big')}"
    if len(value) == _SOCKADDR_IN6.size:
        _, port, address = _SOCKADDR_IN6.unpack(value)
        return f"[{ip_address(address)}]:{int.from_bytes(port, 'big')}"
    return ""


def _network(value: bytes) -> str:
    found = attributes(value)
    return f"{ip_address(found[WGALLOWEDIP_A_IPADDR])}/{found[WGALLOWEDIP_A_CIDR_MASK][0]}"
