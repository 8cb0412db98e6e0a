"""The same calls to this plugin and to Go's v1.9.1-flannel1: the delegate is given the same, refusals are the same.

They run when FLANNEL_CNI_GO names Go's plugin, got by hand: this repository holds none, nor a way to build one. What
was seen then is what the other tests expect.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

GO = os.environ.get("FLANNEL_CNI_GO", "")
pytestmark = pytest.mark.skipif(not GO, reason="FLANNEL_CNI_GO does not name Go's CNI plugin v1.9.1-flannel1")

DUAL = "FLANNEL_IPV6_NETWORK=fc00:5::/48,fc00:6::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:43::1/64\n"


@pytest.fixture
def both(node: Any) -> Any:
    """A node with Go's plugin beside ours, and a delegate that keeps what it gets."""
    (node.bin / "flannel-go").symlink_to(Path(GO).resolve(strict=True))
    answer = '{"cniVersion": "1.0.0", "ips": [{"address": "10.5.43.2/24"}]}'
    node.fake("keeping", f"cat > {node.directory}/given; echo '{answer}'")
    node.container("c1")
    return node


@pytest.mark.parametrize("env", ["", DUAL], ids=["IPv4", "dual stack"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"delegate": {"mtu": 1300, "ipMasq": True, "vlan": 7}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80}]}},
        {"args": {"cni": 1}, "capabilities": {"mac": True}, "dns": {"domain": "x"}, "prevResult": {}},
        {"ipam": {"type": "other", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "10.5.43.7"}], "rangeStart": "10.5.43.9"}},
    ],
    ids=repr,
)
def test_the_delegate_is_given_the_same_bytes(both: Any, env: str, keys: dict[str, Any]) -> None:
    both.subnet_env.write_text(both.subnet_env.read_text() + env)
    keys = {**keys, "delegate": {**keys.get("delegate", {}), "type": "keeping"}}
    given = []
    for plugin in ("flannel-go", "flannel"):
        answer = both.call("ADD", plugin=plugin, **keys)
        assert answer.code == 0, answer
        given.append((both.directory / "given").read_bytes())
    assert given[0] == given[1]


@pytest.mark.parametrize(
    "environment", [{name: None} for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")]
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_variable_that_is_missing_is_missed_in_the_same_words(
    both: Any, command: str, environment: dict[str, None]
) -> None:
    if command == "DEL" and "CNI_NETNS" in environment:
        environment = {"CNI_NETNS": None, "CNI_IFNAME": None}  # type: ignore[dict-item]
    go, ours = (both.call(command, plugin=plugin, environment=environment) for plugin in ("flannel-go", "flannel"))
    assert ours[:2] == go[:2]


@pytest.mark.parametrize(
    ("command", "keys", "environment"),
    [
        ("ADD", {"name": None}, {}),
        ("ADD", {"name": "a/b"}, {}),
        ("ADD", {"cniVersion": "0.9.0"}, {}),
        ("CHECK", {"cniVersion": "0.3.1"}, {}),
        ("GC", {"cniVersion": "1.0.0"}, {}),
        ("STATUS", {"cniVersion": "1.0.0"}, {}),
        ("UPDATE", {}, {}),
        ("VERSION", {}, {}),
        ("DEL", {}, {}),
        ("ADD", {}, {"CNI_CONTAINERID": "../c1"}),
        ("ADD", {}, {"CNI_IFNAME": "a" * 16}),
        ("ADD", {}, {"CNI_IFNAME": ".."}),
        ("ADD", {}, {"CNI_IFNAME": "a b"}),
        ("ADD", {"delegate": {"type": 5}}, {}),
        ("ADD", {"delegate": {"name": "x"}}, {}),
        ("ADD", {"delegate": {"ipam": {}}}, {}),
        ("ADD", {"delegate": {"type": "missing"}}, {}),
        ("ADD", {"delegate": {"type": "a/b"}}, {}),
        ("ADD", {"delegate": {"type": ""}}, {}),
        ("ADD", {"delegate": {"type": "refusing"}}, {}),
        ("ADD", {"ipam": {"routes": [{"dst": "x"}]}}, {}),
    ],
    ids=repr,
)
def test_what_is_refused_is_refused_in_the_same_words(
    both: Any, command: str, keys: dict[str, Any], environment: dict[str, str]
) -> None:
    both.fake("refusing", 'echo \'{"code": 105, "msg": "no", "details": "never"}\'; exit 1')
    go, ours = (
        both.call(command, plugin=plugin, environment=environment, **keys) for plugin in ("flannel-go", "flannel")
    )
    assert ours[:2] == go[:2]


@pytest.mark.parametrize("missing", ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ", "FLANNEL"])
def test_a_subnet_env_that_is_half_there_is_refused_in_the_same_words(both: Any, missing: str) -> None:
    lines = both.subnet_env.read_text().splitlines(keepends=True)
    both.subnet_env.write_text("".join(line for line in lines if not line.startswith(missing)))
    go, ours = (both.call("ADD", plugin=plugin) for plugin in ("flannel-go", "flannel"))
    assert ours[:2] == go[:2]


def test_a_container_moves_between_the_two_plugins(both: Any) -> None:
    for adds, removes in (("flannel", "flannel-go"), ("flannel-go", "flannel")):
        assert both.call("ADD", plugin=adds).code == 0
        assert len(both.leased()) == 1
        assert both.call("DEL", plugin=removes).code == 0
        assert both.leased() == []


def test_the_results_are_the_same(both: Any) -> None:
    keys = {"delegate": {"type": "keeping"}}
    go, ours = (both.call("ADD", plugin=plugin, **keys) for plugin in ("flannel-go", "flannel"))
    assert json.loads(go.out) == json.loads(ours.out)
