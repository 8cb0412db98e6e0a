"""flannelctl cleanup: a host is as it was before flannel, and all that is somebody else's stays."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flannel_core.cleanup.removal import stop_command
from flannel_core.lab import Host, Lab

Cleanup = Callable[..., Any]
State = Callable[[Host], Any]

FOREIGN = (
    "ip link add eth7 type veth peer name eth8",
    "ip link set eth8 up",
    "ip link set eth7 up",
    "ip addr add 203.0.113.1/24 dev eth7",
    "ip route add 192.168.7.0/24 dev eth7",
    "ip route add 192.168.8.0/24 dev eth7 proto 76",
    "ip route add blackhole 192.168.9.0/24",
    "iptables -N MINE",
    "iptables -A FORWARD -s 203.0.113.9 -j MINE",
    "iptables -t nat -A POSTROUTING -s 203.0.113.9 -j ACCEPT",
    "ip6tables -A FORWARD -s 2001:db8:9::1 -j DROP",
    "ip6tables -t nat -A POSTROUTING -s 2001:db8:9::1 -j ACCEPT",
    "nft add table inet mine",
    "nft add chain inet mine input { type filter hook input priority 0 ; }",
)
"""Something of everything that flannel has, somebody else's. Tables of iptables are made by whoever uses one first, and
stay."""


def files(host: Host) -> list[str]:
    return sorted(path.name for path in host.directory.iterdir())


@pytest.mark.drawn(2)
@pytest.mark.parametrize(
    ("backend", "ipv6", "nft"),
    [
        ("vxlan", True, False),
        ("vxlan", True, True),
        ("host-gw", True, False),
        ("extension", False, False),
    ],
    ids=["vxlan", "vxlan and nft", "host-gw", "extension, which undoes what it did by its own commands"],
)
def test_a_host_is_as_it_was_before_flannel(
    lab: Lab, cleanup: Cleanup, state: State, backend: str, ipv6: bool, nft: bool
) -> None:
    a, b = lab.hosts(2, backend=backend, ipv6=ipv6, started=False)
    if nft:
        families = {"Network": "10.5.0.0/16", "IPv6Network": "fc00:5::/48", "EnableIPv6": True}
        lab.set_config({**families, "EnableNFTables": True, "Backend": {"Type": backend}})
    for command in FOREIGN:
        a.run(command)
    before = state(a)
    for host in (a, b):
        host.start(ip_masq=True, ip_blackhole_route=True)
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: a.pings(b))
    a.stop()
    (a.directory / ".owned.json.4711").write_text("half")  # as if an agent had died while it wrote
    assert len(before.changes(a)) >= 3

    as_it_was, its_files = state(a), files(a)
    dry = cleanup(a, "--dry-run")
    assert (dry.exit_code, as_it_was.changes(a), files(a)) == (0, {}, its_files)
    assert str(b.subnet) in dry.out

    done = cleanup(a, "--json")
    assert (done.exit_code, before.changes(a), files(a)) == (0, {}, [])
    assert [line.removeprefix("would remove ") for line in dry.out.splitlines() if line.startswith("would")] == [
        *done.json["removed"],
        *done.json["files"],
    ]
    assert any("192.168.8.0/24" in alike["what"] for alike in done.json["look_alikes"])

    again = cleanup(a)
    assert (again.exit_code, before.changes(a), files(a)) == (0, {}, [])
    assert again.out.startswith("Nothing here is ours.\n")


def test_an_agent_that_runs_is_named_with_how_to_stop_it(lab: Lab, cleanup: Cleanup, state: State) -> None:
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    before = state(a)
    refused = cleanup(a)
    assert refused.exit_code == 1
    assert f"(pid {a.process.pid}: " in refused.err
    assert f"uses {a.directory}; stop it first: `kill {a.process.pid}`" in refused.err
    assert cleanup(a, "--dry-run").exit_code == 1
    assert before.changes(a) == {}
    a.stop()
    assert cleanup(a).exit_code == 0


@pytest.mark.parametrize(
    ("cgroup", "command"),
    [
        ("0::/system.slice/flanneld.service\n", "`systemctl stop flanneld.service`"),
        (
            "4:cpu:/\n1:name=systemd:/system.slice/flanneld@blue.service\n0::/\n",
            "`systemctl stop flanneld@blue.service`",
        ),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n", "`kill 7`"),
        ("0::/system.slice/docker-0123456789ab.scope\n", "`kill 7`"),
        (
            "0::/kubepods.slice/kubepods-burstable.slice/cri-1.scope\n",
            "Kubernetes runs it; take flannel's DaemonSet off this node",
        ),
        ("", "`kill 7`"),
    ],
)
def test_how_to_stop_an_agent_follows_from_who_started_it(cgroup: str, command: str) -> None:
    assert stop_command(cgroup, 7) == command


def test_another_networks_agent_on_the_same_host_is_left_alone(lab: Lab, cleanup: Cleanup) -> None:
    a, b = lab.hosts(2, backend="vxlan", started=False)
    c, d = lab.hosts(2, backend="vxlan", network="10.77.0.0/16", options={"VNI": 7}, on=[a, b], started=False)
    for host in (a, b, c, d):
        host.start(ip_masq=True)
    lab.wait_until_ready([a, b, c, d])
    lab.eventually(lambda: all(host.plan() == [] for host in (a, b, c, d)), 10)  # two that write at once: one at a time
    a.stop()
    written = c.status().writes
    with c.pinging(d) as pings:
        done = cleanup(a)
    assert done.exit_code == 0
    assert pings.lost == 0
    assert (c.plan(), c.status().problems) == ([], ())
    assert c.status().writes == written
    assert "flannel.1:" not in a.run("ip link")
    assert "10.5." not in a.run("iptables-save") + a.run("ip route show proto 76")
    assert "10.77.0.0/16" in a.run("iptables-save")
    assert "10.77" not in done.out
    assert "flannel.7" not in done.out


def test_a_go_flanneld_of_another_network_on_the_same_host_is_left_alone(
    lab: Lab, cleanup: Cleanup, tmp_path: Path
) -> None:
    """Played by a renamed shell, with what it would leave in the kernel."""
    (a,) = lab.hosts(1)
    a.stop()
    go = a.directory.with_name("go")
    go.mkdir()
    (go / "subnet.env").write_text("FLANNEL_NETWORK=10.88.0.0/16\nFLANNEL_SUBNET=10.88.5.1/24\nFLANNEL_MTU=1450\n")
    masq, forward = '-m comment --comment "flanneld masq"', '-m comment --comment "flanneld forward"'
    for command in (
        f"ip link add flannel.8 type vxlan id 8 dev eth0 local {a.machine.ipv4.ip} dstport 8472 nolearning",
        "ip addr add 10.88.5.0/32 dev flannel.8",
        "ip link set flannel.8 up",
        "ip route add 10.88.3.0/24 via 198.51.100.3 dev eth0 proto boot",
        "iptables -t nat -N FLANNEL-POSTRTG",
        f"iptables -t nat -A FLANNEL-POSTRTG -s 10.88.0.0/16 ! -d 224.0.0.0/4 {masq} -j MASQUERADE",
        f"iptables -A FLANNEL-FWD -s 10.88.0.0/16 {forward} -j ACCEPT",
    ):
        a.run(command)
    shell = tmp_path / "flanneld"
    shutil.copy("/bin/bash", shell)
    running = subprocess.Popen(
        ["ip", "netns", "exec", a.namespace, shell, "-c", "read _", "go", f"-subnet-file={go}/subnet.env"],
        stdin=subprocess.PIPE,
    )
    try:
        lab.eventually(lambda: Path(f"/proc/{running.pid}/comm").read_text() == "flanneld\n")
        done = cleanup(a)
        a.directory = go
        refused = cleanup(a)
    finally:
        running.communicate(b"\n")
    assert done.exit_code == 0
    assert "10.88" not in done.out
    assert "flannel.8" not in done.out
    assert "flannel.1:" not in a.run("ip link")
    assert a.run("iptables-save").count("10.88.0.0/16") == 2
    assert "10.5." not in a.run("iptables-save")
    assert f"a Go flanneld (pid {running.pid}: " in refused.err


def test_what_another_agent_has_taken_over_is_that_ones(lab: Lab, cleanup: Cleanup) -> None:
    a, b = lab.hosts(2, backend="vxlan")
    a.stop()
    elsewhere = a.directory.with_name("elsewhere")
    shutil.copytree(a.directory, elsewhere, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    a.start(subnet_file=str(elsewhere / "subnet.env"))
    lab.eventually(lambda: "flannel is ready" in a.log().rpartition("Exiting cleanly")[2])
    with a.pinging(b) as pings:
        done = cleanup(a)
    assert (done.exit_code, pings.lost) == (0, 0)
    assert not any("flannel.1" in line for line in done.out.splitlines())
    assert files(a) == []


def test_what_go_flannel_left_is_named_with_the_commands_that_remove_it(
    lab: Lab, cleanup: Cleanup, state: State
) -> None:
    (a,) = lab.hosts(1, started=False)
    for command in FOREIGN:
        if "proto 76" not in command:
            a.run(command)
    before = state(a)
    a.directory.mkdir(exist_ok=True)
    a.subnet_file.write_text("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.77.1/24\nFLANNEL_MTU=1450\n")
    masq, forward = '-m comment --comment "flanneld masq"', '-m comment --comment "flanneld forward"'
    for command in (
        f"ip link add flannel.1 type vxlan id 1 dev eth0 local {a.machine.ipv4.ip} dstport 8472 nolearning",
        "ip link set flannel.1 up",
        "ip route add 10.5.3.0/24 via 10.5.3.0 dev flannel.1 onlink proto boot",
        "ip route add 10.5.4.0/24 via 198.51.100.4 dev eth0 proto boot",
        "iptables -t nat -N FLANNEL-POSTRTG",
        f"iptables -t nat -A POSTROUTING {masq} -j FLANNEL-POSTRTG",
        f"iptables -t nat -A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 {masq} -j MASQUERADE",
        "iptables -N FLANNEL-FWD",
        f"iptables -A FORWARD {forward} -j FLANNEL-FWD",
        f"iptables -A FLANNEL-FWD -s 10.5.0.0/16 {forward} -j ACCEPT",
        "nft add table ip6 flannel-ipv6",
    ):
        a.run(command)
    left = state(a)
    done = cleanup(a, "--json")
    assert (done.exit_code, done.json["removed"], done.json["files"], left.changes(a)) == (0, [], [], {})
    commands = [command for alike in done.json["look_alikes"] for command in alike["commands"]]
    assert "ip link del cni0" in commands
    for command in commands:
        if "cni0" not in command:
            a.run(command)
    assert (before.changes(a), files(a)) == ({}, [])
    assert [alike["what"] for alike in cleanup(a, "--json").json["look_alikes"]] == ["device cni0"]


def test_a_rule_that_somebody_put_into_our_chain_is_left_and_named(lab: Lab, cleanup: Cleanup) -> None:
    (a,) = lab.hosts(1)
    a.stop()
    a.run("iptables -A FLANNEL-FWD -s 203.0.113.1 -j DROP")
    done = cleanup(a)
    assert done.exit_code == 0
    assert "chain FLANNEL-FWD: it holds something that no flannel made" in done.out
    assert "-A FLANNEL-FWD -s 203.0.113.1/32 -j DROP" in a.run("iptables-save")
    assert "flanneld forward" not in a.run("iptables -S FLANNEL-FWD")


def test_what_cannot_be_removed_is_named_and_stays_on_record(lab: Lab, cleanup: Cleanup) -> None:
    (a,) = lab.hosts(1)
    a.stop()
    record = a.directory / "owned.json"
    on_record = json.loads(record.read_text())
    record.write_text(
        json.dumps(on_record | {"records": {"far-away": ["table 7"]}, "backends": {"teleport": '{"speed": 3}'}})
    )
    done = cleanup(a)
    assert done.exit_code == 1
    assert "What backend teleport has left behind stays: the backend 'teleport' is not installed" in done.err
    assert "flannel.1" not in a.run("ip link")
    assert {"owned.json", "subnet.env", "lease.json"} <= set(files(a))
    record.write_text(json.dumps(on_record))
    assert cleanup(a).exit_code == 0
    assert files(a) == []


@pytest.mark.drawn(2)
@pytest.mark.parametrize("content", [b"", b"{", b"[" * 5000, b'{"version": 1, "devices": "flannel.1"}'])
def test_without_a_readable_record_everything_is_only_named(lab: Lab, cleanup: Cleanup, content: bytes) -> None:
    (a,) = lab.hosts(1)
    a.stop()
    (a.directory / "owned.json").write_bytes(content)
    done = cleanup(a)
    assert done.exit_code == 0
    assert "damaged" in done.err
    assert "flannel.1" in a.run("ip link")
    for line in ("ip link del flannel.1", "-X FLANNEL-FWD", f"rm {a.subnet_file}"):
        assert line in done.out


def test_a_place_where_no_agent_ever_was_is_not_touched(lab: Lab, cleanup: Cleanup, tmp_path: Path) -> None:
    (a,) = lab.hosts(1, started=False)
    a.directory = tmp_path / "nowhere"
    assert cleanup(a).out.startswith("Nothing here is ours.\n")
    assert not a.directory.exists()
