"""What somebody takes away comes back within 5 seconds; test_faults.py has it while pings run, one by one."""

from flannel_core.lab.faults.kernel import NEW_MAC
from flannel_core.lab.faults.scene import device, mac

WITHIN = 5.0


def test_everything_at_once_comes_back(lab):
    a, b, c = lab.hosts(3, backend="vxlan", ipv6=True)
    lab.eventually(lambda: a.pings(b) and a.pings(c))
    a.run("ip link del flannel.1")
    a.run("ip link set flannel-v6.1 down")
    a.run("ip -6 route flush proto 76")
    lab.eventually(lambda: a.plan() == [] and a.pings(b) and a.pings(c), WITHIN)


def test_a_changed_mac_goes_back_to_the_one_that_peers_know(lab):
    a, b = lab.hosts(2, backend="vxlan")
    announced = mac(a, 4)
    a.run(f"ip link set {device(4)} address {NEW_MAC}")
    lab.eventually(lambda: mac(a, 4) == announced, WITHIN)
    lab.eventually(lambda: b.pings(a), WITHIN)


def test_a_remade_device_keeps_its_mac(lab):
    a, b = lab.hosts(2, backend="vxlan")
    announced = mac(a, 4)
    a.run("ip link del flannel.1")
    lab.eventually(lambda: mac(a, 4) == announced and b.pings(a), WITHIN)


def test_subnet_env_is_put_back_when_it_vanishes(lab):
    (a,) = lab.hosts(1)
    before = (a.directory / "subnet.env").read_bytes()
    (a.directory / "subnet.env").unlink()
    lab.eventually(lambda: (a.directory / "subnet.env").exists(), WITHIN)
    assert (a.directory / "subnet.env").read_bytes() == before


def test_ip_forward_is_switched_on_again(lab):
    (a,) = lab.hosts(1)
    a.run("sysctl -q net.ipv4.ip_forward=0")
    lab.eventually(lambda: a.run("sysctl -n net.ipv4.ip_forward") == "1\n", WITHIN)


def test_a_route_to_a_peer_that_goes_elsewhere_by_our_protocol_number_is_set_right(lab):
    a, b = lab.hosts(2, backend="host-gw")
    lab.eventually(lambda: a.pings(b))
    a.run(f"ip route replace {b.subnet} via 198.51.100.1 proto 76")
    lab.eventually(lambda: a.pings(b) and "198.51.100.1 " not in a.run(f"ip route show {b.subnet}"), WITHIN)


def test_what_is_ours_and_unwanted_goes(lab):
    a, b = lab.hosts(2, backend="vxlan")
    lab.eventually(lambda: a.pings(b))
    a.run("ip neigh add 10.5.200.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent")
    a.run("bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 198.51.100.99 self permanent")
    a.run("ip route add 10.5.200.0/24 via 10.5.200.0 dev flannel.1 onlink proto 76")
    lab.eventually(lambda: "10.5.200.0" not in a.run("ip route") + a.run("ip neigh"), WITHIN)
    lab.eventually(lambda: "198.51.100.99" not in a.run("bridge fdb show dev flannel.1"), WITHIN)
    assert a.pings(b)
