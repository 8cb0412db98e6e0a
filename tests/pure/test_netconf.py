"""net-conf.json: the rules, defaults and sentences of Go flannel v0.28.9, and texts that are no configuration."""

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.netconf import (
    MAX_CONFIG_BYTES,
    ConfigInvalid,
    NetworkConfig,
    Space,
    check_config,
    describe_change,
    parse_config,
)

SOURCE = "/etc/kube-flannel/net-conf.json"
NET = {"Network": "10.5.0.0/16"}
NET6 = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fc00::/48"}


def parse(tree: object, *, ranges: bool = True) -> NetworkConfig:
    return parse_config(json.dumps(tree).encode(), SOURCE, ranges=ranges)


def errors(tree: object) -> list[tuple[str, str]]:
    return [(error.key, error.reason) for error in check_config(json.dumps(tree).encode(), SOURCE)]


def space(network: str, length: int, low: str, high: str) -> Space:
    return Space(ip_network(network), length, ip_address(low), ip_address(high))


@pytest.mark.parametrize(
    ("tree", "ipv4"),
    [
        (NET, ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
        ({"Network": "10.5.3.4/16"}, ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
        ({"Network": "10.5.0.0/22"}, ("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0")),
        ({"Network": "10.5.0.0/23"}, ("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128")),
        ({"Network": "10.5.0.0/28"}, ("10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12")),
        ({"Network": "255.255.0.0/16"}, ("255.255.0.0/16", 24, "255.255.1.0", "255.255.255.0")),
        (NET | {"SubnetLen": 18}, ("10.5.0.0/16", 18, "10.5.64.0", "10.5.192.0")),
        (NET | {"SubnetLen": 0}, ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
        (NET | {"SubnetMin": "10.5.10.0", "SubnetMax": "10.5.20.0"}, ("10.5.0.0/16", 24, "10.5.10.0", "10.5.20.0")),
        (NET | {"SubnetMin": "10.5.0.0"}, ("10.5.0.0/16", 24, "10.5.0.0", "10.5.255.0")),
        (NET | {"SubnetMin": "0.0.0.0"}, ("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
    ],
)
def test_the_ipv4_space_has_go_flannels_defaults(tree: dict[str, object], ipv4: tuple[str, int, str, str]) -> None:
    assert parse(tree).ipv4 == space(*ipv4)
    assert parse(tree).ipv6 is None


@pytest.mark.parametrize(
    ("tree", "ipv6"),
    [
        (NET6, ("fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::")),
        (NET6 | {"IPv6Network": "fc00::7/62"}, ("fc00::/62", 64, "fc00:0:0:1::", "fc00:0:0:3::")),
        (NET6 | {"IPv6Network": "fc00::/63"}, ("fc00::/63", 65, "fc00:0:0:0:8000::", "fc00:0:0:1:8000::")),
        (NET6 | {"IPv6Network": "fc00::/124"}, ("fc00::/124", 126, "fc00::4", "fc00::c")),
        (NET6 | {"IPv6SubnetLen": 56}, ("fc00::/48", 56, "fc00:0:0:100::", "fc00:0:0:ff00::")),
        (NET6 | {"IPv6SubnetMin": "fc00:0:0:9::"}, ("fc00::/48", 64, "fc00:0:0:9::", "fc00:0:0:ffff::")),
    ],
)
def test_the_ipv6_space_has_go_flannels_defaults(tree: dict[str, object], ipv6: tuple[str, int, str, str]) -> None:
    assert parse(tree).ipv6 == space(*ipv6)
    assert parse(tree).ipv4 is None


def test_both_families_stand_side_by_side() -> None:
    config = parse(NET | NET6 | {"EnableIPv4": True})
    assert config.networks == (ip_network("10.5.0.0/16"), ip_network("fc00::/48"))


def test_the_capacity_counts_from_the_first_to_the_last_subnet() -> None:
    ipv4 = parse(NET | {"SubnetMin": "10.5.10.0", "SubnetMax": "10.5.20.0"}).ipv4
    assert ipv4 is not None
    assert ipv4.capacity == 11


def test_a_backend_that_is_left_out_is_udp() -> None:
    assert parse(NET).backend_type == "udp"


def test_the_backends_keys_are_kept_as_they_were_written() -> None:
    config = parse(NET | {"Backend": {"Type": "VXLAN", "vni": 7, "MTU": None, "Nested": {"aB": 1}}})
    assert config.backend_type == "vxlan"
    assert config.backend == {"vni": 7, "Nested": {"aB": 1}}


def test_keys_are_matched_without_regard_to_case() -> None:
    assert parse({"nETWORK": "10.5.0.0/16", "subnetlen": 25, "BACKEND": {"tYPE": "alloc"}}) == parse(
        {"Network": "10.5.0.0/16", "SubnetLen": 25, "Backend": {"Type": "alloc"}}
    )


def test_the_last_of_several_equal_keys_wins() -> None:
    text = b'{"Network": "10.1.0.0/16", "network": "10.2.0.0/16", "Network": "10.3.0.0/16"}'
    assert parse_config(text, SOURCE).networks == (ip_network("10.3.0.0/16"),)


def test_the_last_of_several_equal_keys_of_the_backend_wins() -> None:
    text = b'{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1, "vni": 2, "VNI": 3}}'
    assert parse_config(text, SOURCE).backend == {"VNI": 3}


def test_null_keeps_the_default() -> None:
    nulls = dict.fromkeys(["EnableIPv4", "EnableIPv6", "EnableNFTables", "SubnetLen", "SubnetMin", "SubnetMax"])
    assert parse(NET | nulls) == parse(NET)


def test_null_does_not_undo_an_earlier_value() -> None:
    text = b'{"Network": "10.1.0.0/16", "SubnetLen": 26, "subnetlen": null}'
    ipv4 = parse_config(text, SOURCE).ipv4
    assert ipv4 is not None
    assert ipv4.subnet_length == 26


def test_unknown_keys_are_ignored() -> None:
    assert parse(NET | {"Comment": {"by": ["ops", 1.5]}}) == parse(NET)


FOUR = "network must be able to accommodate at least four subnets"
MISSING = "please define a correct Network parameter in the flannel config"
MISSING6 = "please define a correct IPv6Network parameter in the flannel config"
BACKEND = "error decoding Backend property of config: json: cannot unmarshal"


@pytest.mark.parametrize(
    ("tree", "key", "sentence"),
    [
        ({}, "Network", MISSING),
        ({"Network": None}, "Network", MISSING),
        ({"Network": "0.0.0.0/0"}, "Network", MISSING),
        ({"Network": "x"}, "Network", "invalid CIDR address: x"),
        ({"Network": "10.5.0.0"}, "Network", "invalid CIDR address: 10.5.0.0"),
        ({"Network": "10.5.0.0/33"}, "Network", "invalid CIDR address: 10.5.0.0/33"),
        ({"Network": "10.5.0.0/255.255.0.0"}, "Network", "invalid CIDR address: 10.5.0.0/255.255.0.0"),
        ({"Network": 5}, "Network", "invalid CIDR address: 5"),
        ({"Network": ["a"]}, "Network", 'invalid CIDR address: ["a"]'),
        ({"Network": "fc00::/48"}, "Network", "invalid IPv4 CIDR format"),
        ({"Network": "10.5.0.0/29"}, "Network", "network is too small. Minimum useful network prefix is /28"),
        (NET | {"SubnetLen": 31}, "SubnetLen", "SubnetLen must be less than /31"),
        (NET | {"SubnetLen": 17}, "SubnetLen", FOUR),
        (
            NET | {"SubnetLen": "24"},
            "SubnetLen",
            "json: cannot unmarshal string into Go struct field Config.SubnetLen of type uint",
        ),
        (
            NET | {"SubnetLen": -1},
            "SubnetLen",
            "json: cannot unmarshal number -1 into Go struct field Config.SubnetLen of type uint",
        ),
        (
            NET | {"SubnetLen": 24.5},
            "SubnetLen",
            "json: cannot unmarshal number 24.5 into Go struct field Config.SubnetLen of type uint",
        ),
        (
            NET | {"SubnetLen": 2**64},
            "SubnetLen",
            "json: cannot unmarshal number 18446744073709551616 into Go struct field Config.SubnetLen of type uint",
        ),
        (
            NET | {"SubnetLen": True},
            "SubnetLen",
            "json: cannot unmarshal bool into Go struct field Config.SubnetLen of type uint",
        ),
        (NET | {"SubnetMin": "10.6.0.0"}, "SubnetMin", "SubnetMin is not in the range of the Network"),
        (NET | {"SubnetMax": "10.6.0.0"}, "SubnetMax", "SubnetMax is not in the range of the Network"),
        (NET | {"SubnetMin": "10.5.1.1"}, "SubnetMin", "SubnetMin is not on a SubnetLen boundary: 10.5.1.1"),
        (NET | {"SubnetMax": "10.5.1.1"}, "SubnetMax", "SubnetMax is not on a SubnetLen boundary: 10.5.1.1"),
        (NET | {"SubnetMin": "x"}, "SubnetMin", "invalid IP address format"),
        (NET | {"SubnetMin": 7}, "SubnetMin", "invalid IP address format"),
        (NET | {"SubnetMin": "fc00::"}, "SubnetMin", "invalid IPv4 address format"),
        (NET | {"EnableIPv6": True}, "IPv6Network", MISSING6),
        (NET6 | {"IPv6Network": "fc00::1%eth0/48"}, "IPv6Network", "invalid CIDR address: fc00::1%eth0/48"),
        (
            NET6 | {"IPv6Network": "fc00::/125"},
            "IPv6Network",
            "IPv6Network is too small. Minimum useful network prefix is /124",
        ),
        (NET6 | {"IPv6SubnetLen": 127}, "IPv6SubnetLen", "SubnetLen must be less than /127"),
        (NET6 | {"IPv6SubnetLen": 49}, "IPv6SubnetLen", FOUR),
        (NET6 | {"IPv6SubnetMin": "fd00::"}, "IPv6SubnetMin", "IPv6SubnetMin is not in the range of the IPv6Network"),
        (NET6 | {"IPv6SubnetMax": "fd00::"}, "IPv6SubnetMax", "IPv6SubnetMax is not in the range of the IPv6Network"),
        (
            NET6 | {"IPv6SubnetMin": "fc00::1"},
            "IPv6SubnetMin",
            "IPv6SubnetMin is not on a SubnetLen boundary: fc00::1",
        ),
        ({"EnableIPv4": False}, "EnableIPv4", "none defined stack"),
        (
            NET | {"EnableIPv6": "yes"},
            "EnableIPv6",
            "json: cannot unmarshal string into Go struct field Config.EnableIPv6 of type bool",
        ),
        (
            NET | {"EnableNFTables": 1},
            "EnableNFTables",
            "json: cannot unmarshal number into Go struct field Config.EnableNFTables of type bool",
        ),
        (NET | {"Backend": [1]}, "Backend", f"{BACKEND} array into Go value of type struct {{ Type string }}"),
        (NET | {"Backend": {"Type": 5}}, "Backend.Type", f"{BACKEND} number into Go struct field .Type of type string"),
        (NET | {"Backend": {}}, "Backend.Type", "unknown backend type: "),
        (NET | {"Backend": None}, "Backend.Type", "unknown backend type: "),
        ([], "", "json: cannot unmarshal array into Go value of type subnet.Config"),
    ],
)
def test_what_is_wrong_is_said_in_gos_own_sentence(tree: object, key: str, sentence: str) -> None:
    assert errors(tree) == [(key, sentence)]
    with pytest.raises(ConfigInvalid):
        parse(tree)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("10.5.0.0/16", "invalid IPv6 CIDR format"),
        ("::ffff:10.5.0.0/112", "invalid IPv6 CIDR format"),
        ("::10.5.0.0/112", "invalid IPv6 CIDR format"),
    ],
)
def test_an_ipv6_network_of_ipv4_addresses_is_refused_though_go_takes_it(network: str, reason: str) -> None:
    assert errors(NET6 | {"IPv6Network": network}) == [("IPv6Network", reason)]


def test_a_first_subnet_after_the_last_is_refused_though_go_starts_and_finds_no_subnet() -> None:
    assert errors(NET | {"SubnetMin": "10.5.20.0", "SubnetMax": "10.5.10.0"}) == [
        ("SubnetMin", "SubnetMin is after SubnetMax, so there is no subnet to lease")
    ]


def test_an_error_names_the_file_the_key_the_value_and_the_cure() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(NET | {"SubnetLen": 31})
    assert str(caught.value) == (
        "/etc/kube-flannel/net-conf.json: SubnetLen is 31: SubnetLen must be less than /31; "
        "write an integer from 18 to 30, or leave it out"
    )


def test_a_key_that_is_left_out_is_called_missing() -> None:
    assert str(check_config(b"{}", SOURCE)[0]) == (
        "/etc/kube-flannel/net-conf.json: Network is missing: "
        "please define a correct Network parameter in the flannel config; "
        'write "Network": "10.5.0.0/16", or "EnableIPv4": false'
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    tree = {
        "Network": "10.5.0.0/16",
        "SubnetLen": 31,
        "SubnetMin": "x",
        "EnableIPv6": True,
        "IPv6Network": "fc00::/48",
        "IPv6SubnetMax": "fd00::",
        "EnableNFTables": "no",
        "Backend": {"Type": []},
    }
    assert [key for key, _ in errors(tree)] == [
        "SubnetMin",
        "SubnetLen",
        "IPv6SubnetMax",
        "Backend.Type",
        "EnableNFTables",
    ]


def test_a_family_that_is_off_is_read_but_its_ranges_are_not_checked() -> None:
    off = {"IPv6Network": "fc00::/127", "IPv6SubnetLen": 200, "IPv6SubnetMin": "fd00::"}
    assert parse(NET | off).ipv6 is None
    assert errors(NET | {"IPv6SubnetMin": "x"}) == [("IPv6SubnetMin", "invalid IP address format")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"Network": "10.5.0.', "unexpected end of JSON input"),
        (b'{"Network": "10.5.0.0/16"', "unexpected end of JSON input"),
        (b'{"Network": x}', "not JSON at line 1, column 13: Expecting value"),
        (b'{"Network": "10.5.0.0/16"} x', "not JSON at line 1, column 28: Extra data"),
        (b'{"Network": NaN}', "not JSON: NaN is no JSON value"),
        (b'{"Network": "\xff"}', "byte 13 is not UTF-8"),
        (
            b'\xef\xbb\xbf{"Network": "10.5.0.0/16"}',
            "not JSON at line 1, column 1: Unexpected UTF-8 BOM (decode using utf-8-sig)",
        ),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"SubnetLen": ' + b"9" * 5000 + b"}", "a number has 5000 digits"),
        (b" " * (MAX_CONFIG_BYTES + 1), "1048577 bytes, more than the 1048576 that a configuration may have"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_text_that_is_no_configuration_is_one_clean_error(text: bytes, reason: str) -> None:
    (error,) = check_config(text, SOURCE)
    assert (error.key, error.reason) == ("", reason)
    assert str(error).startswith(f"{SOURCE}: {reason}; write JSON such as ")


def test_control_characters_and_long_values_are_escaped_and_cut() -> None:
    (error,) = check_config(json.dumps({"Network": "\x1b[31m\n" + "x" * 10_000}).encode(), SOURCE)
    assert str(error).isprintable()
    assert len(str(error)) < 300


def test_kubernetes_hands_out_the_subnets_so_ranges_are_not_checked() -> None:
    tree = {"Network": "10.5.0.0/29", "SubnetLen": 200, "SubnetMin": "10.9.0.1"}
    assert errors(tree) == [("SubnetLen", "SubnetLen must be less than /31")]
    assert parse(tree, ranges=False).networks == (ip_network("10.5.0.0/29"),)
    assert parse({"Network": "255.255.255.255/32"}, ranges=False).networks == (ip_network("255.255.255.255/32"),)


def test_kubernetes_still_needs_values_that_can_be_read() -> None:
    with pytest.raises(ConfigInvalid, match="invalid CIDR address: x"):
        parse({"Network": "x"}, ranges=False)
    with pytest.raises(ConfigInvalid, match="please define a correct Network"):
        parse({}, ranges=False)


def test_a_change_is_told_key_by_key() -> None:
    old = parse(NET | {"Backend": {"Type": "vxlan", "VNI": 1, "Port": 1}})
    new = parse(NET | {"SubnetLen": 26, "Backend": {"Type": "vxlan", "vni": 2, "GBP": True, "Port": 1}})
    assert describe_change(old, new) == [
        "SubnetLen: 24 -> 26",
        'SubnetMin: "10.5.1.0" -> "10.5.0.64"',
        'SubnetMax: "10.5.255.0" -> "10.5.255.192"',
        "Backend.vni: 1 -> 2",
        "Backend.GBP: left out -> true",
    ]


def test_no_change_is_told_as_nothing_even_if_the_case_of_a_key_changed() -> None:
    old = parse(NET | {"Backend": {"Type": "vxlan", "VNI": 1}})
    new = parse({"network": "10.5.9.9/16", "backend": {"type": "VXLAN", "vni": 1}})
    assert describe_change(old, new) == []


def test_a_changed_secret_is_not_shown() -> None:
    old = parse(NET | {"Backend": {"Type": "wireguard", "PSK": "one"}})
    new = parse(NET | {"Backend": {"Type": "wireguard", "PSK": "two"}})
    assert describe_change(old, new) == ["Backend.PSK: *** -> ***"]


def test_a_family_that_is_switched_on_is_told_with_its_space() -> None:
    assert describe_change(parse(NET), parse(NET | NET6 | {"EnableIPv4": True})) == [
        "EnableIPv6: false -> true",
        'IPv6Network: left out -> "fc00::/48"',
        "IPv6SubnetLen: left out -> 64",
        'IPv6SubnetMin: left out -> "fc00:0:0:1::"',
        'IPv6SubnetMax: left out -> "fc00:0:0:ffff::"',
    ]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
SOME_VALUE = st.one_of(
    ANY_JSON,
    st.sampled_from(["10.5.0.0/16", "10.5.0.0/27", "fc00::/48", "fc00::/60", "10.5.1.0", "10.5.0.4", "fc00:0:0:1::"]),
    st.sampled_from([True, False, 0, 18, 24, 25, 30, 64, 126, {"Type": "vxlan"}, {}]),
)
KEYS = ["EnableIPv4", "EnableIPv6", "EnableNFTables", "Network", "IPv6Network", "SubnetLen", "IPv6SubnetLen"]
KEYS += ["SubnetMin", "SubnetMax", "IPv6SubnetMin", "IPv6SubnetMax", "Backend"]


def test_the_reference_page_has_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "net-conf.md").read_text()
    assert [key for key in KEYS if f"| `{key}` |" not in page] == []


def test_the_example_of_the_reference_page_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "net-conf.md").read_text()
    assert check_config(page.split("```json")[1].split("```")[0].encode(), SOURCE) == []


@given(tree=st.dictionaries(st.sampled_from(KEYS), SOME_VALUE))
def test_any_values_give_a_sound_configuration_or_printable_errors(tree: dict[str, object]) -> None:
    text = json.dumps(tree).encode()
    found = check_config(text, SOURCE)
    if found:
        assert all(str(error).isprintable() for error in found)
        with pytest.raises(ConfigInvalid):
            parse_config(text, SOURCE)
        return
    config = parse_config(text, SOURCE)
    spaces = [s for s in (config.ipv4, config.ipv6) if s is not None]
    assert spaces
    for one in spaces:
        first = ip_network((one.subnet_min, one.subnet_length))
        last = ip_network((one.subnet_max, one.subnet_length))
        assert first.subnet_of(one.network)  # type: ignore[arg-type]
        assert last.subnet_of(one.network)  # type: ignore[arg-type]
        assert one.capacity >= 1


@given(text=st.binary(max_size=60))
def test_any_bytes_give_no_more_than_printable_errors(text: bytes) -> None:
    for error in check_config(text, SOURCE):
        assert str(error).isprintable()
