"""The choice of the external interface from tables alone. docs/reference/interface-choice.md states the same rules."""

from __future__ import annotations

import random
import re
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.errors import EXIT_FAILED, EXIT_USAGE, FlannelError, UsageError
from flannel_core.host import Host
from flannel_core.host_choice import Choice, HostOptions, Tables, choose, sentence, usable_addresses
from flannel_core.lease import Family
from flannel_core.netlink.tables import AddressRow, LinkRow, RouteRow
from flannel_core.objects import Link, OtherLink, Route

V4: tuple[Family, ...] = (4,)
V6: tuple[Family, ...] = (6,)
DUAL: tuple[Family, ...] = (4, 6)

# linux/if_addr.h, written out: the tests do not take the numbers from the code they test.
TEMPORARY, DEPRECATED, PERMANENT = 0x01, 0x20, 0x80


def link(index: int, name: str, mtu: int = 1500) -> LinkRow:
    mac = f"02:00:00:00:00:{index:02x}"
    return LinkRow(index, name, 0x1, mtu, mac, Link(name, OtherLink("veth"), mtu, mac))


def address(index: int, text: str, flags: int = PERMANENT) -> AddressRow:
    interface = ip_interface(text)
    return AddressRow(index, interface.ip, interface.network.prefixlen, 0, flags)


def route(destination: str, index: int, device: str | None, **fields: Any) -> RouteRow:
    return RouteRow(Route(destination, device, **fields), index)


LO, ETH0, ETH1, WLAN0 = link(1, "lo", 65536), link(2, "eth0"), link(3, "eth1", 9000), link(4, "wlan0")
ADDRESSES = [
    address(1, "127.0.0.1/8"),
    address(1, "::1/128"),
    address(2, "192.0.2.11/24"),
    address(2, "fc00::11/64"),
    address(2, "fe80::2/64"),
    address(3, "198.51.100.11/24"),
    address(3, "fc01::11/64"),
    address(3, "fe80::3/64"),
]
DEFAULTS = [
    route("0.0.0.0/0", 2, "eth0", gateway="192.0.2.1"),
    route("192.0.2.0/24", 2, "eth0"),
    route("::/0", 2, "eth0", gateway="fc00::1"),
]
TWO_CARDS = Tables(links=[WLAN0, ETH1, ETH0, LO], addresses=ADDRESSES, routes=DEFAULTS)


def chosen(choice: Choice) -> tuple[str, str | None, str | None]:
    ipv4, ipv6 = (str(address) if address else None for address in (choice.ipv4, choice.ipv6))
    return choice.link.name, ipv4, ipv6


def refusal(options: HostOptions, families: tuple[Family, ...] = V4, tables: Tables = TWO_CARDS) -> str:
    with pytest.raises(FlannelError) as caught:
        choose(options, families, tables)
    assert caught.value.exit_code == EXIT_FAILED
    return str(caught.value)


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (V4, ("eth0", "192.0.2.11", None)),
        (V6, ("eth0", None, "fc00::11")),
        (DUAL, ("eth0", "192.0.2.11", "fc00::11")),
    ],
)
def test_without_options_it_is_the_interface_of_the_default_route(
    families: tuple[Family, ...], expected: tuple[str, str | None, str | None]
) -> None:
    choice = choose(HostOptions(), families, TWO_CARDS)
    assert chosen(choice) == expected
    assert (choice.public_ipv4, choice.public_ipv6) == (choice.ipv4, choice.ipv6)
    assert choice.reason == "the default route is on it"
    assert choice.others == ("eth1 (198.51.100.11, fc01::11)",)


@pytest.mark.parametrize(
    ("options", "families", "expected"),
    [
        pytest.param({"iface": ("eth1",)}, V4, ("eth1", "198.51.100.11", None), id="a name"),
        pytest.param({"iface": ("198.51.100.11",)}, V4, ("eth1", "198.51.100.11", None), id="an address"),
        pytest.param({"iface": ("fc01::11",)}, V6, ("eth1", None, "fc01::11"), id="an IPv6 address"),
        pytest.param({"iface": ("fc01:0:0::11",)}, DUAL, ("eth1", "198.51.100.11", "fc01::11"), id="either family"),
        pytest.param({"iface": ("::ffff:192.0.2.11",)}, V4, ("eth0", "192.0.2.11", None), id="a mapped address"),
        pytest.param({"iface": ("eth9", "eth1", "eth0")}, V4, ("eth1", "198.51.100.11", None), id="the first that is"),
        pytest.param({"iface": ("wlan0", "eth1")}, V4, ("eth1", "198.51.100.11", None), id="the first with addresses"),
        pytest.param({"iface": ("",)}, V4, ("eth0", "192.0.2.11", None), id="empty is the default route"),
        pytest.param({"iface_regex": ("",)}, V4, ("eth0", "192.0.2.11", None), id="so is an empty regex"),
        pytest.param({"iface_regex": ("51",)}, V4, ("eth1", "198.51.100.11", None), id="part of an address"),
        pytest.param({"iface_regex": (r"\.11$",)}, V4, ("eth0", "192.0.2.11", None), id="the first by index"),
        pytest.param({"iface_regex": ("th1",)}, V4, ("eth1", "198.51.100.11", None), id="part of a name"),
        pytest.param({"iface_regex": ("eth0|198",)}, V4, ("eth1", "198.51.100.11", None), id="addresses before names"),
        pytest.param({"iface_regex": ("^10", "eth1")}, V4, ("eth1", "198.51.100.11", None), id="the next regex"),
        pytest.param({"iface_regex": ("198|fc01",)}, DUAL, ("eth1", "198.51.100.11", "fc01::11"), id="both families"),
        pytest.param({"iface_regex": ("198|eth0",)}, DUAL, ("eth0", "192.0.2.11", "fc00::11"), id="both or the name"),
        pytest.param(
            {"iface": ("eth9",), "iface_regex": ("eth1",)}, V4, ("eth1", "198.51.100.11", None), id="regex after iface"
        ),
        pytest.param(
            {"iface": ("eth0",), "iface_regex": ("eth1",)}, V4, ("eth0", "192.0.2.11", None), id="iface before regex"
        ),
        pytest.param({"public_ip": "198.51.100.11"}, V4, ("eth1", "198.51.100.11", None), id="who has the public IP"),
        pytest.param({"public_ipv6": "fc01::11"}, V6, ("eth1", None, "fc01::11"), id="who has the public IPv6"),
        pytest.param(
            {"public_ipv6": "fc01::11"}, DUAL, ("eth1", "198.51.100.11", "fc01::11"), id="public IPv6 in dual stack"
        ),
        pytest.param({"public_ipv6": "fc01::11"}, V4, ("eth0", "192.0.2.11", None), id="no part if the family is off"),
    ],
)
def test_what_each_option_chooses(
    options: dict[str, Any], families: tuple[Family, ...], expected: tuple[str, str | None, str | None]
) -> None:
    assert chosen(choose(HostOptions(**options), families, TWO_CARDS)) == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (HostOptions(iface=("eth0",)), "--iface eth0"),
        (HostOptions(iface=("192.0.2.11",)), "--iface 192.0.2.11 is its address"),
        (HostOptions(iface_regex=(r"^192\.",)), r"--iface-regex ^192\. matches 192.0.2.11"),
        (HostOptions(iface_regex=("eth",)), "--iface-regex eth matches its name"),
        (HostOptions(public_ip="192.0.2.11"), "it has the address of --public-ip 192.0.2.11"),
    ],
)
def test_a_choice_says_why(options: HostOptions, reason: str) -> None:
    choice = choose(options, V4, TWO_CARDS)
    assert (choice.link.name, choice.reason) == ("eth0", reason)


def test_the_way_to_an_address_chooses_its_interface_and_its_source_address() -> None:
    tables = Tables(
        links=TWO_CARDS.links,
        addresses=[*ADDRESSES, address(3, "203.0.113.7/24")],
        routes=DEFAULTS,
        reach=route("203.0.113.0/24", 3, "eth1", source="203.0.113.7"),
    )
    options = HostOptions(iface_can_reach="203.0.113.99")
    assert chosen(choose(options, V4, tables)) == ("eth1", "203.0.113.7", None)
    assert chosen(choose(options, DUAL, tables)) == ("eth1", "203.0.113.7", "fc01::11")
    assert chosen(choose(options, V6, tables)) == ("eth1", None, "fc01::11")


def test_the_way_to_an_own_address_is_its_interface_and_not_lo() -> None:
    reach = route("198.51.100.11/32", 1, "lo", type="local", source="198.51.100.11")
    tables = Tables(links=TWO_CARDS.links, addresses=ADDRESSES, reach=reach)
    assert chosen(choose(HostOptions(iface_can_reach="198.51.100.11"), V4, tables)) == ("eth1", "198.51.100.11", None)


def test_public_addresses_are_announced_and_the_own_ones_kept() -> None:
    options = HostOptions(iface=("eth1",), public_ip="203.0.113.7", public_ipv6="2001:db8::7")
    choice = choose(options, DUAL, TWO_CARDS)
    assert chosen(choice) == ("eth1", "198.51.100.11", "fc01::11")
    assert (str(choice.public_ipv4), str(choice.public_ipv6)) == ("203.0.113.7", "2001:db8::7")


def test_a_family_that_is_off_has_no_address_at_all() -> None:
    choice = choose(HostOptions(iface=("eth1",), public_ipv6="2001:db8::7"), V4, TWO_CARDS)
    assert (choice.ipv6, choice.public_ipv6) == (None, None)


@pytest.mark.parametrize(
    ("options", "families", "says"),
    [
        ({"iface": ("eth9",)}, V4, "--iface eth9: no such interface or address"),
        ({"iface": ("10.0.0.9",)}, V4, "--iface 10.0.0.9: no interface has this address"),
        ({"iface": ("fc01::11",)}, V4, "--iface fc01::11: the network config has IPv6 off"),
        ({"iface": ("wlan0",)}, V4, "wlan0 (--iface wlan0) has no usable IPv4 address"),
        ({"iface": ("eth9", "wlan0")}, V4, "--iface eth9: no such interface or address; wlan0 (--iface wlan0) has no"),
        ({"iface_regex": ("^10\\.",)}, V4, "--iface-regex ^10\\.: matches no address and no name"),
        ({"iface_can_reach": "10.9.9.9"}, V4, "--iface-can-reach 10.9.9.9: the kernel has no route to it"),
        ({"public_ip": "203.0.113.7"}, V4, "--public-ip 203.0.113.7: no interface has this address; say with --iface"),
        ({"iface": ("wlan0",)}, DUAL, "wlan0 (--iface wlan0) has no usable IPv4 address"),
    ],
)
def test_a_choice_that_fails_names_the_option_and_what_there_is(
    options: dict[str, Any], families: tuple[Family, ...], says: str
) -> None:
    message = refusal(HostOptions(**options), families)
    assert says in message
    assert message.endswith("; this host has eth0 (192.0.2.11, fc00::11), eth1 (198.51.100.11, fc01::11)")


@pytest.mark.parametrize(
    ("routes", "families", "says"),
    [
        ([], V4, "there is no IPv4 default route in the main table"),
        (DEFAULTS[:2], V6, "there is no IPv6 default route in the main table"),
        ([], DUAL, "there is no IPv4 default route in the main table"),
        ([route("0.0.0.0/0", 0, None, type="unreachable")], V4, "there is no IPv4 default route in the main table"),
        ([route("0.0.0.0/0", 2, "eth0", nexthops=2)], V4, "the IPv4 default route has several next hops"),
    ],
)
def test_a_default_route_that_leads_nowhere_is_named_with_the_cure(
    routes: list[RouteRow], families: tuple[Family, ...], says: str
) -> None:
    message = refusal(HostOptions(), families, Tables(links=TWO_CARDS.links, addresses=ADDRESSES, routes=routes))
    assert says in message
    assert "--iface" in message


@pytest.mark.parametrize(
    ("options", "tables", "family", "says"),
    [
        ({"iface_regex": ("^198",)}, TWO_CARDS, 6, "an IPv4 and an IPv6 address of one interface, as both families"),
        (
            {"public_ip": "192.0.2.11", "public_ipv6": "fc01::11"},
            TWO_CARDS,
            6,
            "--public-ip 192.0.2.11 is an address of eth0, but --public-ipv6 fc01::11 is on eth1",
        ),
        (
            {"iface": ("192.0.2.11",), "public_ipv6": "2001:db8::7"},
            TWO_CARDS,
            6,
            "--iface 192.0.2.11 is an address of eth0, but --public-ipv6 2001:db8::7 is on no interface",
        ),
        ({}, Tables(TWO_CARDS.links, ADDRESSES, DEFAULTS[:2]), 6, "there is no IPv6 default route in the main table"),
        ({}, Tables(TWO_CARDS.links, ADDRESSES, DEFAULTS[2:]), 4, "there is no IPv4 default route in the main table"),
        (
            {},
            Tables(TWO_CARDS.links, ADDRESSES, [DEFAULTS[0], route("::/0", 3, "eth1", gateway="fe80::1")]),
            6,
            "the IPv4 default route is on eth0, the IPv6 one on eth1: both have to be on one interface",
        ),
        (
            {"iface": ("eth0",)},
            Tables([ETH0], [address(2, "192.0.2.11/24"), address(2, "fe80::2/64")]),
            6,
            "eth0 (--iface eth0) has no usable IPv6 address",
        ),
    ],
)
def test_where_both_families_do_not_fit_one_does_and_it_is_said_why(
    options: dict[str, Any], tables: Tables, family: Family, says: str
) -> None:
    choice = choose(HostOptions(**options), DUAL, tables)
    assert list(choice.lacks) == [family]
    assert says in choice.lacks[family]
    assert [choice.ipv4 is None, choice.ipv6 is None] == [family == 4, family == 6]
    assert [choice.public_ipv4 is None, choice.public_ipv6 is None] == [family == 4, family == 6]


def test_an_interface_with_both_families_goes_before_an_earlier_one_with_one() -> None:
    options = HostOptions(iface=("wlan0", "eth1"))
    tables = Tables(TWO_CARDS.links, [*ADDRESSES, address(4, "203.0.113.4/24")], DEFAULTS)
    assert (choose(options, DUAL, tables).link.name, choose(options, V4, tables).link.name) == ("eth1", "wlan0")


def test_the_first_of_several_default_routes_counts() -> None:
    routes = [route("0.0.0.0/0", 3, "eth1", metric=50), route("0.0.0.0/0", 2, "eth0", metric=100)]
    tables = Tables(links=TWO_CARDS.links, addresses=ADDRESSES, routes=routes)
    assert choose(HostOptions(), V4, tables).link.name == "eth1"


def test_a_host_without_addresses_is_told_so() -> None:
    tables = Tables(links=[ETH0], addresses=[address(2, "fe80::2/64")])
    assert refusal(HostOptions(iface=("eth9",)), tables=tables).endswith(
        "this host has no interface with a global address"
    )


def test_a_host_full_of_interfaces_is_described_in_a_few() -> None:
    links = [link(index, f"eth{index}") for index in range(1, 301)]
    tables = Tables(links=links, addresses=[address(index, f"10.0.{index}.1/24") for index in range(1, 251)])
    assert refusal(HostOptions(iface=("wlan0",)), tables=tables).endswith("eth10 (10.0.10.1), 240 more")


@pytest.mark.parametrize(
    "options",
    [
        {"iface_regex": ("eth(",)},
        {"iface_regex": ("[[:digit:]]",)},
        {"iface_regex": (r"\pL",)},
        {"iface": ("eth0",), "iface_regex": ("*",)},
        {"iface_can_reach": "gateway.example"},
        {"public_ip": "192.0.2.300"},
        {"public_ip": "fc00::1"},
        {"public_ipv6": "192.0.2.1"},
        {"public_ipv6": "fe80::1%eth0"},
    ],
)
def test_a_value_that_fits_no_host_is_a_usage_error_naming_it(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        choose(HostOptions(**options), V4, TWO_CARDS)
    assert caught.value.exit_code == EXIT_USAGE
    option, value = next(reversed(options.items()))
    assert f"--{option.replace('_', '-')}" in str(caught.value)
    assert (value if isinstance(value, str) else value[0]) in str(caught.value)


def test_text_from_the_command_line_cannot_forge_a_log_line() -> None:
    assert refusal(HostOptions(iface=("eth0\nI0101 forged",))).isprintable()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([("169.254.7.7/16", PERMANENT), ("192.0.2.1/24", 0)], ["192.0.2.1", "169.254.7.7"], id="global"),
        pytest.param([("192.0.2.1/24", 0), ("192.0.2.2/24", PERMANENT)], ["192.0.2.2", "192.0.2.1"], id="permanent"),
        pytest.param(
            [("192.0.2.1/24", PERMANENT | TEMPORARY), ("192.0.2.2/24", PERMANENT)],
            ["192.0.2.2", "192.0.2.1"],
            id="primary before secondary",
        ),
        pytest.param([("192.0.2.9/24", 0), ("192.0.2.2/24", 0)], ["192.0.2.9", "192.0.2.2"], id="else as they come"),
        pytest.param([("192.0.2.1/24", DEPRECATED), ("192.0.2.2/24", 0)], ["192.0.2.2"], id="not deprecated"),
        pytest.param([("127.0.0.2/8", PERMANENT), ("0.0.0.0/0", 0), ("224.0.0.5/32", 0)], [], id="not loopback"),
        pytest.param([("255.255.255.255/32", PERMANENT)], [], id="not broadcast"),
    ],
)
def test_the_order_in_which_addresses_are_preferred(rows: list[tuple[str, int]], expected: list[str]) -> None:
    tables = Tables(links=[ETH0], addresses=[address(2, text, flags) for text, flags in rows])
    assert [str(a) for a in usable_addresses(ETH0, 4, tables)] == expected


@given(st.integers(0, 2**32), st.permutations(range(8)))
def test_a_privacy_address_is_never_preferred_to_a_stable_one(seed: int, order: list[int]) -> None:
    flags = random.Random(seed)
    rows = [address(2, f"fc00::{n + 1}/64", flags.choice([0, PERMANENT]) | flags.choice([0, TEMPORARY])) for n in order]
    found = usable_addresses(ETH0, 6, Tables(links=[ETH0], addresses=rows))
    kinds = {row.address: (not row.flags & PERMANENT, bool(row.flags & TEMPORARY)) for row in rows}
    assert [kinds[ip] for ip in found] == sorted(kinds.values())


def test_the_log_line_keeps_the_sentence_that_people_search_for() -> None:
    host = Host(
        "eth0",
        2,
        1500,
        "02:00:00:00:00:02",
        ipv4=ip_address("192.0.2.11"),
        public_ipv4=ip_address("203.0.113.7"),
        reason="--iface eth0",
        others=("eth1 (198.51.100.11)",),
    )
    assert sentence(host) == (
        "Using interface with name eth0 and address 192.0.2.11, announced as 203.0.113.7, because --iface eth0; "
        "others: eth1 (198.51.100.11)"
    )
    assert re.match(
        "Using interface with name eth0 and address 192.0.2.11 and v6 address fc00::11,",
        sentence(Host("eth0", 2, 1500, "", ipv4=ip_address("192.0.2.11"), ipv6=ip_address("fc00::11"))),
    )
