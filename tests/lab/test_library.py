"""The lab itself: it leaves nothing behind, touches nothing of the machine's, and tells lost packets from none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flannel_core.lab import Lab, LabError, record
from flannel_core.lab.network import NAMESPACES, ip_batch, make_namespaces

CRASH = """
import os
from flannel_core.lab import Lab
with Lab() as lab:
    (a,) = lab.hosts(1)
    print(lab.id, a.process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def names_of(lab):
    return [path.name for path in NAMESPACES.glob(f"*{lab.id}*")]


def machine_network():
    return [
        subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=True).stdout
        for words in ("-o link", "-o addr", "route show table all", "-6 route show table all", "rule")
    ]


@pytest.fixture
def wired(lab):
    """Two hosts without agents, joined by routes made by hand."""
    a, b = lab.hosts(2, ipv6=True, started=False, configured=False)
    for number, (host, other) in enumerate([(a, b), (b, a)], 1):
        host.directory.mkdir()
        host.subnet_file.write_text(
            f"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.{number}.1/24\nFLANNEL_IPV6_NETWORK=fc00:5::/48\n"
            f"FLANNEL_IPV6_SUBNET=fc00:5:0:{number}::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        )
        host.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        host.run(f"ip route add 10.5.{3 - number}.0/24 via {other.machine.ipv4.ip}")
        host.run(f"ip route add fc00:5:0:{3 - number}::/64 via {other.machine.ipv6.ip}")
    return a, b


def test_hosts_with_routes_made_by_hand_ping_each_other(lab, wired):
    assert [result.milliseconds is not None for result in lab.ping_table()] == [True] * 4


def test_lost_pings_are_counted_and_the_outage_is_measured(lab, wired):
    a, b = wired
    with a.pinging(b, 4, interval=0.01) as pings:
        lab.eventually(lambda: pings.sent > 20)
        a.run("ip route del 10.5.2.0/24")
        sent = pings.sent
        lab.eventually(lambda: pings.sent > sent + 50)
        a.run(f"ip route add 10.5.2.0/24 via {b.machine.ipv4.ip}")
        lab.eventually(lambda: pings.sent > sent + 100)
    assert 40 <= pings.lost < pings.sent
    assert 0.3 < pings.outage < 5


def test_no_ping_is_lost_where_nothing_is_broken(lab, wired):
    a, b = wired
    with a.pinging(b, interval=0.01) as pings:
        lab.eventually(lambda: pings.sent > 100)
    assert pings.lost == 0
    assert pings.outage == 0


def test_a_router_that_refuses_is_the_reason(lab, wired):
    a, _ = wired
    a.run("ip route add unreachable 10.5.2.2")
    refused = {r.source: r.reason for r in lab.ping_table(within=0.5) if r.milliseconds is None}
    assert refused["h1"] == "10.5.1.1 says: host unreachable"


def test_a_lab_leaves_nothing_and_never_touches_the_machine():
    before = machine_network()
    with Lab() as lab:
        lab.hosts(2, ipv6=True, started=False)
        assert machine_network() == before
        assert names_of(lab)
    assert names_of(lab) == []
    assert not lab.directory.exists()
    assert machine_network() == before


def test_an_exception_inside_leaves_nothing_either():
    lab = Lab()
    with pytest.raises(ZeroDivisionError), lab:
        print(len(lab.hosts(1, started=False)) / 0)
    assert names_of(lab) == []
    assert not lab.directory.exists()


def test_a_host_that_does_not_get_ready_is_named_with_its_log():
    with Lab() as lab:
        (a,) = lab.hosts(1, started=False)
        a.start(iface="nope0")
        with pytest.raises(LabError, match=r"(?s)h1: its agent ended with 1.*nope0"):
            lab.wait_until_ready()


def test_a_command_that_fails_says_what_it_said(lab, wired):
    with pytest.raises(LabError, match=r"`ip route del 10\.99\.0\.0/24` in .*h1 ended with 2: .*No such process"):
        wired[0].run("ip route del 10.99.0.0/24")


def test_one_bad_line_of_a_batch_is_named(lab):
    make_namespaces([name := f"flannel-{lab.id}-extra"])
    try:
        with pytest.raises(LabError, match=r"`ip -n \S+ link set nope up` failed: Cannot find device"):
            ip_batch(["link set lo up", "link set nope up"], name)
    finally:
        ip_batch([f"netns del {name}"])


def test_only_what_carries_the_labs_own_mark_is_ended(lab):
    (a,) = lab.hosts(1, started=False)
    mine = subprocess.Popen(["sleep", "60"], env=lab.environment)
    stranger = subprocess.Popen(["ip", "netns", "exec", a.namespace, "sleep", "60"])
    try:
        lab.eventually(lambda: stranger.pid in record.inmates(a.namespace))
        lab.close()
        assert mine.wait(5) == -9
        assert stranger.poll() is None
        assert [str(stranger.pid) in sentence for sentence in lab.leftovers] == [True]
    finally:
        mine.kill()
        stranger.kill()
        stranger.wait()


def test_clean_removes_what_a_crashed_lab_left(lab):
    crashed = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True)
    identifier, pid = crashed.stdout.split()
    assert Path(f"/proc/{pid}").exists()
    done = subprocess.run(
        [Path(sys.executable).parent / "flannelctl", "lab", "clean", "--json"], capture_output=True, text=True
    )
    said = json.loads(done.stdout)
    assert identifier in said["removed"]
    assert {"id": lab.id, "pid": os.getpid()} in said["running"]
    assert done.returncode == 0
    assert record.start_time(int(pid)) is None
    assert list(NAMESPACES.glob(f"*{identifier}*")) == []
