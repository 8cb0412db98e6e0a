"""What the kernel of a host must be set to: named with the command that cures it, or kept with --set-sysctls."""

from __future__ import annotations

import re
import socket
import struct
import subprocess

import pytest

from flannel_core.lab.network import execute, inside, ip_batch

WITHIN = 5.0
FORWARD, FORWARD6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
ACCEPT_RA = "net.ipv6.conf.eth0.accept_ra"
BRIDGED = "net.bridge.bridge-nf-call-iptables"
PROC_READ_ONLY = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'
OWN_WAY = {"set_sysctls": None}


def commands(host):
    """The commands in the sentences of the status, one a problem."""
    return [re.search("`(.*)`", problem)[1] for problem in host.status().problems]


def value(host, name):
    return host.run(f"sysctl -n {name}").strip()


def off(host, *names):
    for name in names:
        host.run(f"sysctl -q -w {name}=0")


def advertise_a_router(lab):
    """A router advertisement (RFC 4861, 4.2) from the underlay, for half an hour."""

    def send():
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
            router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            index = socket.if_nametoindex("underlay")
            router.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))

    inside(f"flannel-{lab.id}-net", send)


def advertised_route(host):
    return host.run("ip -6 route show default proto ra").strip()


def with_an_advertised_route(lab, **options):
    """A host that is no IPv6 router yet and got its route from one, and its agent."""
    (a,) = lab.hosts(1, backend="vxlan", ipv6=True, started=False)
    a.run(f"sysctl -q -w {FORWARD}=1 {FORWARD6}=0")
    advertise_a_router(lab)
    lab.eventually(lambda: advertised_route(a), WITHIN)
    a.start(**options)
    lab.wait_until_ready()
    return a


# --- forwarding ------------------------------------------------------------------------------------------------------


def test_a_host_that_does_not_forward_is_ready_and_told_what_cures_it(lab):
    a, b = lab.hosts(2, backend="vxlan", ipv6=True, started=False)
    off(a, FORWARD, FORWARD6)
    a.start(**OWN_WAY)
    b.start()
    lab.wait_until_ready()
    assert not b.pings(a)
    assert commands(a) == [f"sysctl -w {FORWARD}=1", f"sysctl -w {FORWARD6}=1"]
    for command in commands(a):
        a.run(command)
    assert a.status().problems == ()
    lab.eventually(lambda: b.pings(a), WITHIN)


def test_without_set_sysctls_nothing_is_set(lab):
    (a,) = lab.hosts(1, ipv6=True, started=False)
    off(a, FORWARD, FORWARD6)
    a.start(**OWN_WAY)
    lab.wait_until_ready()
    assert (value(a, FORWARD), value(a, FORWARD6)) == ("0", "0")


def test_with_set_sysctls_forwarding_is_set_and_kept(lab):
    (a,) = lab.hosts(1, ipv6=True, started=False)
    off(a, FORWARD, FORWARD6)
    a.start()
    lab.wait_until_ready()
    assert (value(a, FORWARD), value(a, FORWARD6)) == ("1", "1")
    off(a, FORWARD, FORWARD6)
    lab.eventually(lambda: (value(a, FORWARD), value(a, FORWARD6)) == ("1", "1"), WITHIN)


# --- a route from a router advertisement -----------------------------------------------------------------------------


def test_forwarding_alone_would_lose_the_advertised_route(lab):
    a = with_an_advertised_route(lab, **OWN_WAY)
    a.run(f"sysctl -q -w {FORWARD6}=1")
    lab.eventually(lambda: advertised_route(a) == "", WITHIN)


def test_the_command_in_the_status_keeps_the_advertised_route(lab):
    a = with_an_advertised_route(lab, **OWN_WAY)
    (command,) = commands(a)
    assert command == f"sysctl -w {ACCEPT_RA}=2 {FORWARD6}=1"
    a.run(command)
    assert a.status().problems == ()
    assert advertised_route(a)


def test_set_sysctls_keeps_the_advertised_route_whoever_switches_what(lab):
    a = with_an_advertised_route(lab)
    assert (value(a, ACCEPT_RA), value(a, FORWARD6)) == ("2", "1")
    assert advertised_route(a)
    a.run(f"sysctl -q -w {ACCEPT_RA}=1")
    lab.eventually(lambda: value(a, ACCEPT_RA) == "2", WITHIN)
    off(a, FORWARD6)
    lab.eventually(lambda: value(a, FORWARD6) == "1", WITHIN)
    assert advertised_route(a)


def test_a_route_that_is_advertised_later_is_kept_too(lab):
    (a,) = lab.hosts(1, ipv6=True, started=False)
    a.run(f"sysctl -q -w {FORWARD}=1 {FORWARD6}=0")
    a.start(**OWN_WAY)
    lab.wait_until_ready()
    assert commands(a) == [f"sysctl -w {FORWARD6}=1"]
    advertise_a_router(lab)
    lab.eventually(lambda: commands(a) == [f"sysctl -w {ACCEPT_RA}=2 {FORWARD6}=1"], WITHIN)


# --- br_netfilter ----------------------------------------------------------------------------------------------------


def test_a_bridge_that_passes_iptables_by_matters_once_kube_proxy_is_there(lab):
    (a,) = lab.hosts(1, started=False)
    off(a, BRIDGED)
    a.start(iptables_resync="1", **OWN_WAY)
    lab.wait_until_ready()
    a.run(f"sysctl -q -w {FORWARD}=1")
    assert a.status().problems == ()
    a.run("iptables -t nat -N KUBE-SERVICES")
    lab.eventually(lambda: commands(a) == [f"sysctl -w {BRIDGED}=1"], WITHIN)
    a.run(*commands(a))
    assert a.status().problems == ()


def test_with_set_sysctls_it_is_set_where_kube_proxy_is(lab):
    (a,) = lab.hosts(1, started=False)
    off(a, BRIDGED)
    a.run("iptables -t nat -N KUBE-SERVICES")
    a.start()
    lab.wait_until_ready()
    lab.eventually(lambda: value(a, BRIDGED) == "1", 15.0)
    off(a, BRIDGED)
    lab.eventually(lambda: value(a, BRIDGED) == "1", WITHIN)


# --- rp_filter -------------------------------------------------------------------------------------------------------


def give_it_a_second_way_to(host, peer, lab):
    """Through eth1 and a router, while the peer's packets still come in through eth0."""
    underlay = f"flannel-{lab.id}-net"
    host.run(f"ip link add eth1 type veth peer name way netns {underlay}")
    ip_batch(["addr add 203.0.113.1/30 dev way", "link set way up"], underlay)
    execute(underlay, "sysctl -q -w net.ipv4.ip_forward=1", host.environment)
    host.run("ip addr add 203.0.113.2/30 dev eth1")
    host.run("ip link set eth1 up")
    host.run(f"ip route add {peer.status().host.addresses[0]}/32 via 203.0.113.1")


def test_a_strict_reverse_path_is_named_where_peers_are_answered_by_another_way(lab):
    a, b = lab.hosts(2, backend="vxlan")
    a.run("sysctl -q -w net.ipv4.conf.eth0.rp_filter=1")
    a.restart(**OWN_WAY)
    lab.wait_until_ready()
    assert b.pings(a)
    assert a.status().problems == ()
    give_it_a_second_way_to(a, b, lab)
    lab.eventually(lambda: commands(a) == ["sysctl -w net.ipv4.conf.eth0.rp_filter=2"], WITHIN)
    assert not b.pings(a)
    a.run(*commands(a))
    assert a.status().problems == ()
    lab.eventually(lambda: b.pings(a), WITHIN)


def test_with_set_sysctls_such_a_host_becomes_loose(lab):
    a, b = lab.hosts(2, backend="vxlan")
    a.run("sysctl -q -w net.ipv4.conf.eth0.rp_filter=1")
    give_it_a_second_way_to(a, b, lab)
    lab.eventually(lambda: b.pings(a), 15.0)
    assert value(a, "net.ipv4.conf.eth0.rp_filter") == "2"


# --- a read-only /proc/sys -------------------------------------------------------------------------------------------


def test_a_read_only_proc_is_named_once_and_holds_nothing_up(lab):
    a, b = lab.hosts(2, backend="vxlan", ipv6=True, started=False)
    off(a, FORWARD, FORWARD6)
    b.start()
    with a.log_file.open("ab") as log:
        a.process = subprocess.Popen(
            ["ip", "netns", "exec", a.namespace, "unshare", "-m", "sh", "-c", PROC_READ_ONLY, "sh", *a.command()],
            stdout=log,
            stderr=log,
            env=a.environment,
        )
    lab.wait_until_ready()
    (problem,) = a.status().problems
    assert "/proc/sys is read-only here" in problem
    assert commands(a) == [f"sysctl -w {FORWARD}=1 {FORWARD6}=1"]
    a.run(*commands(a))
    assert a.status().problems == ()
    lab.eventually(lambda: b.pings(a), WITHIN)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_host_that_lacks_settings_is_healthy_all_the_same(lab, path):
    (a,) = lab.hosts(1, started=False)
    off(a, FORWARD)
    a.start(**OWN_WAY)
    lab.wait_until_ready()
    assert a.http(path)[0] == 200
