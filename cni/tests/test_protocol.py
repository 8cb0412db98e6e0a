"""What a runtime may ask, and in what words it is refused: the specification, section 2, and Go's sentences. Pure, but
for the last ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_cni.delegate_config import delegate_config, encode_config, with_gateways
from flannel_cni.protocol import VERSIONS, Call, CniError, parse_call
from flannel_cni.subnet_env import SubnetEnv, parse

WHOLE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
ENV = parse(
    b"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.43.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", "subnet.env"
)


def called(config: object = {"name": "podnet"}, **variables: str) -> Call:
    return parse_call({**WHOLE, **variables}, lambda: json.dumps(config).encode())


def refused(config: object = {"name": "podnet"}, **variables: str) -> tuple[int, str, str]:
    with pytest.raises(CniError) as raised:
        called(config, **variables)
    return raised.value.code, raised.value.message, raised.value.details


def test_a_whole_call() -> None:
    config = {"name": "podnet", "cniVersion": "1.0.0"}
    call = called(config, CNI_NETNS_OVERRIDE="true")
    paths = ("/opt/cni/bin", "/usr/lib/cni")
    assert call == Call("ADD", config, "c1", "eth0", "/run/netns/c1", True, paths)
    assert (call.network, call.version) == ("podnet", "1.0.0")
    assert called().version == "0.1.0"


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ],
)
def test_what_a_command_needs(command: str, needed: str) -> None:
    empty = dict.fromkeys(WHOLE, "") | {"CNI_COMMAND": command}
    assert refused(**empty) == (4, f"required env variables [{needed}] missing", "")


def test_what_is_missing_is_said_before_the_configuration_is_read() -> None:
    def read() -> bytes:
        raise AssertionError

    with pytest.raises(CniError, match=r"required env variables \[CNI_IFNAME\] missing"):
        parse_call({**WHOLE, "CNI_IFNAME": ""}, read)
    assert parse_call({"CNI_COMMAND": "VERSION"}, read).command == "VERSION"


def test_an_unknown_command() -> None:
    assert refused(CNI_COMMAND="UPDATE", CNI_PATH="") == (4, "unknown CNI_COMMAND: UPDATE", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 16, "interface name is too long"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", "interface name contains / or : or whitespace characters"),
        ("a:b", "interface name contains / or : or whitespace characters"),
        ("a\tb", "interface name contains / or : or whitespace characters"),
    ],
)
def test_an_interface_that_cannot_be(name: str, words: str) -> None:
    assert refused(CNI_IFNAME=name)[:2] == (4, words)


def test_a_version_that_nobody_has() -> None:
    assert refused({"name": "podnet", "cniVersion": "0.9.0"}) == (
        1,
        "incompatible CNI versions",
        'config is "0.9.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
    )


@pytest.mark.parametrize(
    ("command", "since"), [("ADD", "0.1.0"), ("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)
def test_a_command_is_known_since_a_version(command: str, since: str) -> None:
    for version in VERSIONS:
        config = {"name": "podnet", "cniVersion": version}
        if VERSIONS.index(version) >= VERSIONS.index(since):
            assert called(config, CNI_COMMAND=command).command == command
        else:
            assert refused(config, CNI_COMMAND=command)[:2] == (1, f"config version does not allow {command}")


def rendered(env: SubnetEnv = ENV, **keys: Any) -> dict[str, Any]:
    return delegate_config(called({"name": "podnet", "type": "flannel", **keys}), env)


def test_the_delegates_configuration_in_full() -> None:
    assert encode_config(rendered()) == (
        b'{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.5.43.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}],'
        b'"type":"host-local"},"isGateway":true,"mtu":1450,"name":"podnet","type":"bridge"}'
    )


@pytest.mark.parametrize(
    ("keys", "there", "expected"),
    [
        ({"delegate": {"mtu": 1400}}, "mtu", 1400),
        ({"delegate": {"ipMasq": True}}, "ipMasq", True),
        ({"delegate": {"isGateway": False}}, "isGateway", False),
        ({"delegate": {"type": "ipvlan"}}, "isGateway", None),
        ({"delegate": {"vlan": 5, "forceAddress": True}}, "vlan", 5),
        ({"cniVersion": "0.4.0"}, "cniVersion", "0.4.0"),
        ({"delegate": {"cniVersion": "0.2.0"}, "cniVersion": "0.4.0"}, "cniVersion", "0.4.0"),
        ({"runtimeConfig": {"mac": "02::1"}}, "runtimeConfig", {"mac": "02::1"}),
        ({"args": {}, "capabilities": {"mac": True}, "dns": {}, "prevResult": {}}, "args", None),
    ],
    ids=repr,
)
def test_what_the_delegate_is_given(keys: dict[str, Any], there: str, expected: object) -> None:
    assert rendered(**keys).get(there) == expected


def test_the_networks_own_ipam_keeps_everything_but_its_ranges() -> None:
    route = {"dst": "192.0.2.0/24", "gw": "10.5.43.9"}
    ipam = {"type": "dhcp", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [route], "dataDir": "/tmp"}
    assert rendered(ipam=ipam)["ipam"] == {
        "type": "dhcp",
        "dataDir": "/tmp",
        "ranges": [[{"subnet": "10.5.43.0/24"}]],
        "routes": [route, {"dst": "10.5.0.0/16"}],
    }


def test_a_host_that_does_not_masquerade_has_the_bridge_do_it() -> None:
    assert rendered(ENV._replace(ip_masq=False))["ipMasq"] is True


def test_several_networks_of_both_families_each_once() -> None:
    env = parse(
        b"FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16,10.5.0.0/16\nFLANNEL_SUBNET=10.5.43.1/24\n"
        b"FLANNEL_IPV6_NETWORK=fc00:5::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:1::1/64\nFLANNEL_MTU=1\nFLANNEL_IPMASQ=yes\n"
        b"SOMETHING_ELSE\n",
        "subnet.env",
    )
    assert [str(network) for network in env.networks] == ["10.5.0.0/16", "10.6.0.0/16", "fc00:5::/48"]
    assert [str(subnet) for subnet in env.subnets] == ["10.5.43.0/24", "fc00:5:0:1::/64"]
    assert (env.mtu, env.ip_masq) == (1, False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("FLANNEL_SUBNET", "FLANNEL_SUBNET has no value"),
        ("FLANNEL_SUBNET=10.5.43.1", "FLANNEL_SUBNET is no address with a prefix length: '10.5.43.1'"),
        ("FLANNEL_SUBNET=10.5.43.1/33", "FLANNEL_SUBNET is no address with a prefix length: '10.5.43.1/33'"),
        ("FLANNEL_SUBNET=10.5.43.1/255.255.255.0", "FLANNEL_SUBNET is no address with a prefix length"),
        ("FLANNEL_NETWORK=", "FLANNEL_NETWORK is no address with a prefix length: ''"),
        ('FLANNEL_MTU="1450"', "FLANNEL_MTU is no number of bytes"),
        ("FLANNEL_MTU=-1", "FLANNEL_MTU is no number of bytes: '-1'"),
        ("FLANNEL_MTU=4294967296", "FLANNEL_MTU is no number of bytes: '4294967296'"),
    ],
)
def test_a_subnet_env_that_says_nonsense(line: str, words: str) -> None:
    whole = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.43.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    with pytest.raises(ValueError, match=r"^/run/subnet\.env: ") as raised:
        parse((whole + line).encode(), "/run/subnet.env")
    assert words in str(raised.value)


def test_a_route_without_a_gateway_goes_through_the_containers_own() -> None:
    given = {
        "ips": [{"address": "10.5.43.2/24", "gateway": "10.5.43.1"}, {"address": "fc00::2/64"}],
        "routes": [{"dst": "10.5.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.5.43.9"}, {"dst": "::/0"}],
    }
    assert with_gateways(given)["routes"] == [
        {"dst": "10.5.0.0/16", "gw": "10.5.43.1"},
        {"dst": "0.0.0.0/0", "gw": "10.5.43.9"},
        {"dst": "::/0"},
    ]
    assert with_gateways({}) == {"routes": []}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "cniVersion", "type", "delegate", "ipam", "runtimeConfig"])
INNER = st.dictionaries(st.sampled_from(["type", "name", "ipam", "routes", "mtu", "dst"]), JSON, max_size=4)
CONFIGS = st.dictionaries(KEYS, JSON | INNER | st.just("1.0.0"), max_size=6).map(lambda keys: {"name": "podnet"} | keys)


@given(CONFIGS)
def test_no_configuration_is_answered_with_anything_but_an_error_or_a_delegates(config: dict[str, Any]) -> None:
    try:
        found = delegate_config(called(config), ENV)
    except (CniError, ValueError):
        return
    assert json.loads(encode_config(found))["name"] == config["name"]


def test_the_program_says_what_it_supports(node: Any) -> None:
    assert node.call("VERSION", config="").out == (
        b'{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
    )


def test_the_program_says_what_it_is_to_whom_asks_nothing(node: Any) -> None:
    answer = node.call("", config="")
    assert (answer.code, answer.out) == (0, b"")
    assert answer.said.startswith("CNI Plugin flannel version ")
    assert answer.said.endswith("CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n")
