"""The backend wireguard on a kernel that has it."""

import asyncio
import base64
import json
import subprocess
import time

import pytest

from flannel_backend_wireguard.keys import key_text, new_key
from flannel_backend_wireguard.wireguard import WireguardBackend, WireguardData
from flannel_backend_wireguard.wireguard_objects import WireguardDevice, WireguardPeer
from flannel_backend_wireguard.wireguard_target import WireguardTarget
from flannel_core.conformance.kernel import KernelBackendConformance
from flannel_core.journal import Journal
from flannel_core.lab.network import in_a_throw_away_namespace
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Link, Wireguard
from flannel_core.ownership import OwnedFile
from flannel_core.reconciler.lanes import Lanes

KEEPALIVE = 3


class TestSeparate(KernelBackendConformance):
    backend = WireguardBackend
    config = {"Type": "wireguard"}  # noqa: RUF012

    def data(self, number):
        return WireguardData(base64.b64encode(bytes([number]) * 32).decode(), 51820)


class TestShared(TestSeparate):
    config = {"Type": "wireguard", "Mode": "auto"}  # noqa: RUF012


def endpoint(host):
    """Where the kernel sends what is for the one peer; nothing while there is none."""
    return host.run("wg show flannel-wg endpoints").partition("\t")[2].strip()


@pytest.mark.drawn(1)
@pytest.mark.parametrize("mode", ["separate", "auto"])
def test_hosts_ping_in_both_families(lab, mode):
    a, b = lab.hosts(2, backend="wireguard", ipv6=True, options={"Mode": mode})
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert a.status().backend.notes == ("in the kernel",)
    assert ("flannel-wg-v6" in a.run("ip -br link")) == (mode == "separate")


def test_device_and_sessions_outlive_the_agent(lab):
    a, b = lab.hosts(2, backend="wireguard")
    lab.eventually(lambda: a.pings(b))
    handshakes = a.run("wg show flannel-wg latest-handshakes")
    index = json.loads(a.run("ip -json link show flannel-wg"))[0]["ifindex"]
    with a.pinging(b, interval=0.2) as stream:
        a.kill()
        a.start()
        lab.wait_until_ready([a])
    assert stream.lost == 0
    assert a.run("wg show flannel-wg latest-handshakes") == handshakes
    assert json.loads(a.run("ip -json link show flannel-wg"))[0]["ifindex"] == index
    assert a.status().writes == 0


def test_an_endpoint_that_was_learnt_is_left_and_one_that_nobody_is_heard_at_is_put_back(lab):
    a, b = lab.hosts(2, backend="wireguard", options={"PersistentKeepaliveInterval": KEEPALIVE})
    lab.eventually(lambda: a.pings(b))
    told = endpoint(a)
    # b is behind a NAT from now on, which gives its packets another port and lets none in to the old one. Were a's
    # heard there first, b's own would be answers to them and keep their port.
    b.run("nft add table ip nat")
    b.run("nft add chain ip nat heard { type filter hook prerouting priority -300 ; }")
    b.run("nft add rule ip nat heard iifname eth0 udp dport 51820 drop")
    b.run("nft add chain ip nat out { type nat hook postrouting priority 100 ; }")
    b.run("nft add rule ip nat out udp sport 51820 masquerade to :61000-61001")
    b.run("nft add chain ip nat sent { type filter hook postrouting priority 99 ; }")
    b.run("nft add rule ip nat sent udp sport 51820 counter")
    lab.eventually(lambda: endpoint(a).endswith((":61000", ":61001")), within=2 * KEEPALIVE + 5)
    # Counted, for seconds mean little in an emulated machine: nobody pings yet, so these are b's keepalives.
    assert int(b.run("nft list chain ip nat sent").partition(" packets ")[2].split()[0]) <= 2
    assert a.pings(b)
    learnt = endpoint(a)
    time.sleep(5)  # more than two looks at the device
    assert endpoint(a) == learnt
    assert a.pings(b)
    b.run("nft delete table ip nat")
    b.run("ip link set eth0 down")
    a.run(f"wg set flannel-wg peer {a.run('wg show flannel-wg peers').strip()} remove")
    lab.eventually(lambda: endpoint(a) == told, within=5)


def test_what_an_operator_changes_comes_back(lab):
    a, b = lab.hosts(2, backend="wireguard")
    lab.eventually(lambda: a.pings(b))
    key = a.run("wg show flannel-wg peers").strip()
    a.run(f"wg set flannel-wg peer {key} remove")
    lab.eventually(lambda: key in a.run("wg show flannel-wg peers"), within=5)
    a.run(f"wg set flannel-wg peer {key} allowed-ips 10.9.0.0/16")
    lab.eventually(lambda: str(b.subnet) in a.run("wg show flannel-wg allowed-ips"), within=5)
    a.run("wg set flannel-wg listen-port 4000")
    lab.eventually(lambda: a.run("wg show flannel-wg listen-port").strip() == "51820", within=5)
    a.run("ip link del flannel-wg")
    lab.eventually(lambda: key in a.run("wg show flannel-wg peers"), within=5)
    lab.eventually(lambda: a.pings(b))


def test_the_status_tells_of_handshakes_and_bytes(lab):
    a, b = lab.hosts(2, backend="wireguard")
    lab.eventually(lambda: a.pings(b))
    lab.eventually(lambda: a.status().peers[0].facts.get("received_bytes", 0) > 0, within=5)
    assert a.status().peers[0].facts["handshake_age"] < 180


def test_a_thousand_peers_are_written_in_one_pass_and_not_again(tmp_path):
    async def script():
        owned = OwnedFile(tmp_path / "owned.json")
        owned.record(["flannel-wg"], ["10.64.0.0/14"])
        lanes = Lanes([KernelTarget(), WireguardTarget(tmp_path)], owned, Journal())
        device = WireguardDevice("flannel-wg", new_key(), 51820)
        lanes.want("this host", [Link("flannel-wg", Wireguard(), 1420), device], "this host")
        for number in range(1000):
            key = key_text((number + 1).to_bytes(32, "big"))
            subnet = f"10.{64 + number // 250}.{number % 250 + 1}.0/24"
            endpoint = f"198.18.{number // 250}.{number % 250 + 1}:51820"
            lanes.want(key, [WireguardPeer("flannel-wg", key, endpoint, (subnet,))], key)
        await lanes.open()
        await lanes.settle()
        assert lanes.failures() == []
        command = ["wg", "show", "flannel-wg", "peers"]
        peers = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
        assert len(peers.split()) == 1000
        writes = lanes.writes
        lanes.suspect()
        await lanes.settle()
        assert lanes.writes == writes == 1002
        await lanes.close()

    in_a_throw_away_namespace(lambda: asyncio.run(script()))
