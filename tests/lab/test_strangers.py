"""What is not ours stays as it is, is named where it is in the way, and holds up nothing else."""


def test_two_agents_of_different_networks_share_a_host(lab):
    a, b = lab.hosts(2, backend="vxlan")
    c, d = lab.hosts(2, backend="vxlan", network="10.6.0.0/16", options={"VNI": 2}, on=[a, b])
    lab.eventually(lambda: a.pings(b) and c.pings(d))
    for agent in (a, c):
        agent.restart()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a) and c.pings(d) and d.pings(c))
    assert [agent.plan() for agent in (a, b, c, d)] == [[], [], [], []]


def test_two_agents_of_different_networks_share_a_host_and_its_interface(lab):
    a, b = lab.hosts(2, backend="host-gw")
    c, d = lab.hosts(2, backend="host-gw", network="10.6.0.0/16", on=[a, b])
    lab.eventually(lambda: a.pings(b) and c.pings(d))
    c.restart()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and b.pings(a) and c.pings(d) and d.pings(c))
    assert [agent.plan() for agent in (a, b, c, d)] == [[], [], [], []]


def test_a_foreign_route_to_a_peer_is_named_and_left_alone(lab):
    a, b, c = lab.hosts(3, backend="vxlan", started=False)
    for host in (b, c):
        host.start()
    lab.wait_until_ready([b, c])
    a.run(f"ip route add {b.subnet} via 198.51.100.1 proto static")
    before = a.run(f"ip route show {b.subnet}")
    a.start()
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(c) and c.pings(a))
    assert a.run(f"ip route show {b.subnet}") == before
    status = a.status()
    assert [failure.foreign for failure in status.failures] == [True]
    assert str(b.subnet) in status.failures[0].object
    assert any(str(b.subnet) in problem for problem in status.problems)
    assert [peer.programmed for peer in sorted(status.peers, key=lambda p: str(b.subnet) not in p.subnets)] == [
        False,
        True,
    ]
    a.run(f"ip route del {b.subnet}")
    lab.eventually(lambda: a.pings(b) and a.status().failures == ())


def test_a_device_of_our_name_but_another_type_is_named_and_waited_for(lab):
    (a,) = lab.hosts(1, started=False)
    a.run("ip link add flannel.1 type bridge")
    a.start()
    lab.eventually(lambda: any("flannel.1" in problem for problem in a.status().problems))
    assert not a.ready()
    assert "bridge" in a.run("ip -d link show flannel.1")
    a.run("ip link del flannel.1")
    lab.wait_until_ready([a])


def test_foreign_routes_and_devices_are_never_pruned(lab):
    a, b = lab.hosts(2, backend="host-gw")
    a.run("ip route add 10.5.250.0/24 via 198.51.100.1")
    a.run("ip route add 203.0.113.0/24 via 198.51.100.1 proto 76")
    a.restart()
    lab.wait_until_ready([a])
    lab.eventually(lambda: a.pings(b) and a.plan() == [])
    routes = a.run("ip route")
    assert "10.5.250.0/24" in routes
    assert "203.0.113.0/24" in routes
