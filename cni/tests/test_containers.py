"""Containers come and go: Debian's bridge, host-local and portmap do what this plugin tells them, in a real kernel."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flannel_core.lab.network import execute


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"] for ip in result["ips"]]


def default_of_go(node: Any, **keys: Any) -> dict[str, Any]:
    """The plugin's part of 10-flannel.conflist."""
    delegate = {"hairpinMode": True, "isDefaultGateway": True}
    config: dict[str, Any] = node.config(cniVersion="0.3.1", name="cbr0", delegate=delegate, **keys)
    return config


def test_a_container_gets_an_address_of_the_hosts_subnet_and_gives_it_back(node: Any) -> None:
    answer = node.add()
    assert answer.code == 0, answer
    assert addresses(answer.json) == ["10.5.43.2/24"]
    assert answer.out.startswith(b'{\n    "cniVersion": "1.0.0"')
    assert node.leased() == ["10.5.43.2"]
    assert node.call("CHECK", prevResult=answer.json) == (0, b"", "")
    assert node.call("DEL") == (0, b"", "")
    assert (node.noted(), node.leased(), node.devices()) == ([], [], {"cni0"})


@pytest.mark.parametrize("version", [None, "", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_every_version_of_the_specification_that_the_delegate_knows(node: Any, version: str | None) -> None:
    answer = node.add(cniVersion=version)
    assert answer.code == 0, answer
    assert answer.json["cniVersion"] == (version or "0.1.0")
    assert node.call("DEL", cniVersion=version).code == 0
    assert (node.noted(), node.leased()) == ([], [])


def test_the_delegate_is_told_what_it_needs_and_what_it_was_told_is_noted_down(node: Any) -> None:
    answer = node.add(config=default_of_go(node, runtimeConfig={"mac": "02:00:00:00:00:05"}, args={"a": 1}))
    assert answer.code == 0, answer
    noted = (node.data / "c1:cbr0:eth0").read_text()
    assert noted in answer.said
    assert noted == (
        '{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,'
        f'"ipam":{{"dataDir":"{node.addresses}","ranges":[[{{"subnet":"10.5.43.0/24"}}]],'
        '"routes":[{"dst":"10.5.0.0/16"}],"type":"host-local"},'
        '"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0",'
        '"runtimeConfig":{"mac":"02:00:00:00:00:05"},"type":"bridge"}'
    )
    assert ((node.data / "c1:cbr0:eth0").stat().st_mode & 0o777, node.data.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (node.data / "c1").read_text() == noted, "the name that Go's plugin knows it by"


def test_a_container_of_two_stacks(node: Any) -> None:
    node.subnet_env.write_text(
        node.subnet_env.read_text() + "FLANNEL_IPV6_NETWORK=fc00:5::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:43::1/64\n"
    )
    answer = node.add()
    assert addresses(answer.json) == ["10.5.43.2/24", "fc00:5:0:43::2/64"]
    assert [route["dst"] for route in answer.json["routes"]] == ["10.5.0.0/16", "fc00:5::/48"]
    assert node.call("CHECK", prevResult=answer.json).code == 0
    assert node.call("DEL").code == 0
    assert node.leased() == []


def test_two_networks_of_one_container_are_noted_down_apart(node: Any) -> None:
    other = {"bridge": "cni1"}
    first = node.add()
    second = node.call("ADD", name="other", delegate=other, environment={"CNI_IFNAME": "net1"})
    assert (first.code, second.code) == (0, 0), second
    assert node.noted() == ["c1", "c1:other:net1", "c1:podnet:eth0"]
    assert node.call("DEL", name="other", environment={"CNI_IFNAME": "net1"}).code == 0
    assert (node.leased("other"), node.leased()) == ([], ["10.5.43.2"])
    assert node.call("DEL").code == 0
    assert (node.noted(), node.leased()) == ([], [])


def test_a_second_add_fails_and_leaves_the_first_its_network(node: Any) -> None:
    first = node.add()
    assert node.add().error == (999, "container veth name provided (eth0) already exists")
    assert node.call("CHECK", prevResult=first.json).code == 0
    assert node.leased() == ["10.5.43.2"]


def test_del_twice_and_of_what_never_was_is_no_error(node: Any) -> None:
    node.add()
    assert [node.call("DEL").code for _ in range(2)] == [0, 0]
    assert node.call("DEL", "unheard-of") == (0, b"", "")


def test_del_of_another_interface_leaves_the_first_its_network(node: Any) -> None:
    result = node.add().json
    assert node.call("DEL", environment={"CNI_IFNAME": "net1"}).code == 0
    assert node.noted() == ["c1", "c1:podnet:eth0"]
    assert node.call("CHECK", prevResult=result).code == 0


def test_what_the_go_plugin_noted_down_counts_in_its_own_network(node: Any) -> None:
    """As Go's plugin leaves it: one file, by the container's name alone."""
    node.add()
    noted = (node.data / "c1:podnet:eth0").read_bytes()
    (node.data / "c1").unlink()
    (node.data / "c1:podnet:eth0").rename(node.data / "c1")
    assert node.call("DEL", name="other").code == 0
    assert node.leased() == ["10.5.43.2"]
    assert node.call("DEL").code == 0
    assert (node.noted(), node.leased()) == ([], [])

    node.add("c2")
    (node.data / "c2").unlink()
    (node.data / "c2:podnet:eth0").unlink()
    (node.data / "c2").write_bytes(noted)
    there = [{"containerID": "c2", "ifname": "net7"}]
    assert node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": there}).code == 0
    assert node.noted() == ["c2"], "which interface it was is not known, but the container is there"
    assert node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": []}).code == 0
    assert (node.noted(), node.leased()) == ([], [])


def test_a_container_whose_namespace_is_gone_gives_its_address_back(node: Any) -> None:
    node.add()
    for netns in ("", "/run/netns/gone"):
        assert node.call("DEL", environment={"CNI_NETNS": netns}).code == 0
        assert (node.noted(), node.leased()) == ([], [])


def test_del_needs_neither_subnet_env_nor_the_same_configuration(node: Any) -> None:
    node.add()
    node.subnet_env.unlink()
    assert node.call("DEL", delegate={"type": "something-else"}).code == 0
    assert (node.noted(), node.leased()) == ([], [])


def test_check_finds_an_address_that_an_operator_took_away(node: Any) -> None:
    result = node.add().json
    execute(f"{node.namespace}-c1", "ip addr flush dev eth0", {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    code, message = node.call("CHECK", prevResult=result).error
    assert code == 999
    assert "10.5.43.2" in message


def test_check_finds_a_container_whose_subnet_is_no_longer_leased(node: Any) -> None:
    result = node.add().json
    node.subnet_env.write_text(node.subnet_env.read_text().replace("10.5.43.1", "10.5.99.1"))
    assert node.call("CHECK", prevResult=result).error == (
        999,
        "container c1 has an address of 10.5.43.0/24, but this host leases 10.5.99.0/24: "
        "it cannot be reached until it is made anew",
    )
    node.subnet_env.unlink()
    assert node.call("CHECK", prevResult=result).code == 0, "the agent is only late"


def test_check_knows_what_was_never_attached(node: Any) -> None:
    result = node.add().json
    code, message = node.call("CHECK", "c2", prevResult=result).error
    assert (code, message) == (
        999,
        f"container c2 has no eth0 in the network podnet: nothing is noted down in {node.data}",
    )


def test_gc_takes_away_what_the_runtime_does_not_name_and_nothing_else(node: Any) -> None:
    for name in ("gone", "here"):
        assert node.add(name).code == 0
    assert (
        node.call("ADD", "here", name="other", delegate={"bridge": "cni1"}, environment={"CNI_IFNAME": "n1"}).code == 0
    )
    (node.data / "notes.of.somebody").write_text("not ours")
    (node.data / "a-directory").mkdir()
    valid = [{"containerID": "here", "ifname": "eth0"}]
    keys = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert node.call("GC", **keys) == (0, b"", "")
    assert node.noted() == ["a-directory", "here", "here:other:n1", "here:podnet:eth0", "notes.of.somebody"]
    assert node.leased() == ["10.5.43.3"]
    assert node.leased("other") == ["10.5.43.2"]


def test_gc_goes_on_after_one_that_cannot_be_taken_away_and_names_it(node: Any) -> None:
    node.fake(
        "stubborn", 'test "$CNI_COMMAND" = ADD && exec echo "{}"; echo \'{"code": 11, "msg": "not now"}\'; exit 1'
    )
    assert node.add("c1", delegate={"type": "stubborn"}).code == 0
    assert node.add("c2").code == 0
    answer = node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})
    assert answer.error == (999, "not everything could be taken away")
    assert answer.json["details"] == "c1 eth0: not now"
    assert node.noted() == ["c1", "c1:podnet:eth0"]
    assert node.leased() == []


def test_gc_without_a_list_takes_nothing_away(node: Any) -> None:
    node.add()
    for valid in ({}, {"cni.dev/valid-attachments": None}, {"cni.dev/valid-attachments": ["c1"]}):
        assert node.call("GC", cniVersion="1.1.0", **valid).error[0] == 7
    assert node.leased() == ["10.5.43.2"]


def test_a_delegate_that_knows_gc_and_status_is_asked_too(node: Any) -> None:
    """Debian's bridge is older than both commands."""
    node.fake(
        "modern",
        f'cat > {node.directory}/got-$CNI_COMMAND; test "$CNI_COMMAND" = VERSION && '
        'echo \'{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}\'; exit 0',
    )
    keys = {"cniVersion": "1.1.0", "delegate": {"type": "modern"}}
    assert node.call("STATUS", **keys).code == 0
    assert node.call("GC", **keys, **{"cni.dev/valid-attachments": []}).code == 0
    status, gc = (json.loads((node.directory / f"got-{command}").read_text()) for command in ("STATUS", "GC"))
    assert (status["type"], status["name"]) == ("modern", "podnet")
    assert gc["cni.dev/valid-attachments"] == []


def test_status_says_whether_an_add_would_work(node: Any) -> None:
    assert node.call("STATUS", cniVersion="1.1.0") == (0, b"", "")
    (node.bin / "host-local").unlink()
    code, message = node.call("STATUS", cniVersion="1.1.0").error
    assert (code, message) == (50, f'failed to find plugin "host-local" in path [{node.bin}]')


def test_a_hundred_containers_at_once_get_a_hundred_addresses(node: Any) -> None:
    names = [f"c{number}" for number in range(100)]
    for name in names:
        node.container(name)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda name: node.call("ADD", name), names))
    assert [answer for answer in answers if answer.code] == []
    given = {address for answer in answers for address in addresses(answer.json)}
    assert len(given) == 100
    assert len(node.leased()) == 100
    with ThreadPoolExecutor(16) as pool:
        assert {answer.code for answer in pool.map(lambda name: node.call("DEL", name), names)} == {0}
    assert (node.noted(), node.leased(), node.devices()) == ([], [], {"cni0"})
