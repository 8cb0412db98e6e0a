"""Overlaps found by table are the overlaps found by looking at everything."""

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.lease import IPNetwork
from flannel_core.prefix_map import PrefixMap

# A small space, so that overlaps are frequent.
FOUR = st.builds(
    lambda bits, length: IPv4Network((f"10.0.{bits}.0", length), strict=False), st.integers(0, 255), st.integers(14, 30)
)
SIX = st.builds(
    lambda bits, length: IPv6Network((f"fc00:0:0:{bits:x}::", length), strict=False),
    st.integers(0, 255),
    st.integers(50, 70),
)


@pytest.mark.parametrize("networks", [FOUR, SIX], ids=["IPv4", "IPv6"])
@given(data=st.data())
def test_a_lookup_finds_what_a_search_finds(networks: st.SearchStrategy[IPNetwork], data: st.DataObject) -> None:
    items = data.draw(st.lists(networks, max_size=12))
    gone = data.draw(st.sets(st.sampled_from(range(len(items))))) if items else set()
    wanted = data.draw(networks)
    table: PrefixMap[int] = PrefixMap()
    for number, network in enumerate(items):
        table.add(network, number)
    for number in gone:
        table.remove(items[number], number)
    expected = {n for n, network in enumerate(items) if n not in gone and network.overlaps(wanted)}
    assert set(table.overlapping(wanted)) == expected


def test_removing_what_is_not_there_is_an_error() -> None:
    table: PrefixMap[str] = PrefixMap()
    with pytest.raises(KeyError):
        table.remove(ip_network("10.5.0.0/24"), "a")
