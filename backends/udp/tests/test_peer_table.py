"""Which host an address is on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_backend_udp.forwarder import peer_table
from flannel_backend_udp.forwarder.peer_table import PeerTable

subnets = st.builds(
    lambda number, length: str(IPv4Network((number, length), strict=False)),
    st.integers(0x0A050000, 0x0A05FFFF),
    st.integers(16, 30),
)


@given(st.dictionaries(subnets, st.sampled_from(["192.0.2.1", "192.0.2.2"])), st.data())
def test_an_address_is_on_the_host_with_the_longest_subnet_around_it(
    peers: dict[str, str], data: st.DataObject
) -> None:
    table = PeerTable()
    for subnet, host in peers.items():
        table.put(subnet, host)
    for subnet in data.draw(st.lists(st.sampled_from(sorted(peers) or ["10.5.0.0/16"]))):
        table.remove(subnet)
        peers.pop(subnet, None)
    address = IPv4Address(data.draw(st.integers(0x0A050000, 0x0A05FFFF)))
    around = [network for network in map(IPv4Network, peers) if address in network]
    expected = peers[str(max(around, key=lambda network: network.prefixlen))] if around else None
    assert table.find(address.packed) == expected
    assert table.find(address.packed) == expected
    assert table.peers == peers


@pytest.mark.parametrize(("subnet", "address"), [("10.5.2.1/24", "192.0.2.2"), ("x", "192.0.2.2"), ("10.5.2.0/24", "")])
def test_what_is_no_subnet_or_no_address_changes_nothing(subnet: str, address: str) -> None:
    table = PeerTable()
    with pytest.raises(ValueError):
        table.put(subnet, address)
    assert table.peers == {}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_table, "REMEMBERED", 10)
    table = PeerTable()
    table.put("10.5.2.0/24", "192.0.2.2")
    for number in range(256):
        assert table.find(bytes([10, 5, 2, number])) == "192.0.2.2"
    assert len(table._found) <= 10
