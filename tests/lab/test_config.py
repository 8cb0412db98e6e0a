"""net-conf.json that is missing, broken, or names what is not there is waited for, with the reason in the status."""

import json

import pytest

GOOD = {"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}


def test_a_config_that_is_not_there_yet_is_waited_for(lab):
    (a,) = lab.hosts(1, configured=False)
    lab.eventually(lambda: a.status().waiting_for)
    assert not a.ready()
    lab.set_config(GOOD)
    lab.wait_until_ready([a])
    assert a.status().waiting_for is None


@pytest.mark.drawn(4)
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"Network": "10.5.0.0/16", ', "JSON"),
        ('{"Network": "10.5.0.0/33", "Backend": {"Type": "host-gw"}}', "10.5.0.0/33"),
        (json.dumps({**GOOD, "SubnetLen": "24"}), "SubnetLen"),
        (json.dumps({**GOOD, "SubnetLen": 31}), "SubnetLen must be less than /31"),
        (json.dumps({**GOOD, "Backend": {"Type": "nope"}}), "nope"),
        (json.dumps({**GOOD, "Backend": {"Type": "vxlan", "Port": 70000}}), "70000"),
        ("[" * 5000, "nested too deep"),
        (b"\xff\xfe{}", "not UTF-8"),
    ],
    ids=["truncated", "no CIDR", "wrong type", "rule", "unknown backend", "backend key", "deeply nested", "no UTF-8"],
)
def test_a_bad_config_is_named_and_taken_as_soon_as_it_is_repaired(lab, text, named):
    (a,) = lab.hosts(1, configured=False)
    lab.set_config(text)
    lab.eventually(lambda: any(named in problem for problem in a.status().problems))
    assert not a.ready()
    assert "Traceback" not in a.log()
    lab.set_config(GOOD)
    lab.wait_until_ready([a])


def test_a_config_broken_under_a_running_agent_changes_nothing(lab):
    a, b = lab.hosts(2, backend="host-gw")
    lab.eventually(lambda: a.pings(b))
    lab.set_config("{")
    lab.eventually(lambda: a.status().problems)
    assert a.ready()
    assert a.pings(b)


def test_a_full_address_space_is_waited_for_and_taken_when_a_subnet_is_given_back(lab):
    a, b, c = lab.hosts(3, backend="host-gw", network="10.5.0.0/26", configured=False, started=False)
    lab.set_config(
        {"Network": "10.5.0.0/26", "SubnetLen": 28, "SubnetMin": "10.5.0.32", "Backend": {"Type": "host-gw"}}
    )
    for host in (a, b):
        host.start()
    lab.wait_until_ready([a, b])
    c.start()
    lab.eventually(lambda: "subnet" in (c.status().waiting_for or ""))
    gone = b.subnet
    b.stop()
    b.store.release(gone)
    lab.wait_until_ready([c])
    assert c.subnet == gone
    lab.eventually(lambda: a.pings(c))


def test_an_external_mtu_that_changes_reaches_subnet_env_and_the_device(lab):
    (a,) = lab.hosts(1, backend="vxlan")
    assert a.env.mtu == 1450
    a.run("ip link set eth0 mtu 1400")
    lab.eventually(lambda: a.env.mtu == 1350)
    lab.eventually(lambda: a.run("cat /sys/class/net/flannel.1/mtu") == "1350\n")


def vxlan(**keys):
    return {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", **keys}}


def test_a_changed_mtu_is_applied_without_a_restart(lab):
    a, b = lab.hosts(2)
    lab.set_config(vxlan(MTU=1400))
    lab.eventually(lambda: a.env.mtu == b.env.mtu == 1350)
    lab.eventually(lambda: a.run("cat /sys/class/net/flannel.1/mtu") == "1350\n")
    with a.pinging(b) as pings:
        lab.set_config(vxlan())
        lab.eventually(lambda: a.env.mtu == b.env.mtu == 1450)
    assert pings.lost == 0


def test_other_bounds_hold_for_the_next_host_and_a_subnet_outside_of_them_stays_and_is_named(lab):
    a, b = lab.hosts(2, started=False)
    a.start()
    lab.wait_until_ready([a])
    subnet = a.subnet
    lab.set_config({**vxlan(), "SubnetMin": "10.5.240.0", "SubnetMax": "10.5.250.0"})
    named = f"our subnet {subnet} lies outside what"
    lab.eventually(lambda: named in "".join(a.status().problems))
    b.start()
    lab.wait_until_ready([b])
    assert 240 <= b.subnet.network_address.packed[2] <= 250
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    assert a.subnet == subnet
    a.restart()
    lab.wait_until_ready([a])
    assert 240 <= a.subnet.network_address.packed[2] <= 250
    lab.eventually(lambda: a.pings(b) and b.pings(a) and a.status().problems == ())


def test_direct_routing_is_switched_on_and_off_under_a_running_ping(lab):
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    with a.pinging(b) as pings:
        lab.set_config(vxlan(DirectRouting=True))
        lab.eventually(lambda: "dev eth0" in a.run(f"ip route show {b.subnet}"))
        lab.eventually(lambda: not a.run("bridge fdb show dev flannel.1"))
        lab.set_config(vxlan())
        lab.eventually(lambda: "dev flannel.1" in a.run(f"ip route show {b.subnet}"))
    assert pings.lost == 0


def test_another_vni_moves_everything_to_another_device_and_leaves_nothing_of_the_old(lab):
    a, b = lab.hosts(2)
    mac = a.run("cat /sys/class/net/flannel.1/address")
    lab.set_config(vxlan(VNI=7))
    lab.eventually(lambda: a.pings(b) and b.pings(a))
    lab.eventually(lambda: "flannel.1:" not in a.run("ip link"))
    assert a.run("cat /sys/class/net/flannel.7/address") == mac
    lab.eventually(lambda: a.plan() == [] and a.status().problems == ())


def test_a_vni_whose_device_another_agent_has_is_named_and_everything_goes_on_as_it_was(lab):
    a, b = lab.hosts(2, options={"VNI": 7})
    c, d = lab.hosts(2, network="10.6.0.0/16", on=(a, b))
    lab.eventually(lambda: a.pings(b) and c.pings(d))
    lab.set_config({"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}})
    lab.eventually(lambda: "cannot be applied: another flanneld" in "".join(c.status().problems))
    assert c.pings(d)
    lab.set_config({"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan", "VNI": 8}})
    lab.eventually(lambda: "flannel.8" in c.run("ip link") and c.pings(d) and c.status().problems == ())
    assert a.pings(b)


def test_another_network_is_for_a_restart_and_named_until_then(lab):
    a, b = lab.hosts(2)
    subnet = a.subnet
    lab.set_config({"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}})
    said = lab.eventually(lambda: a.status().problems)
    assert 'a restart of flanneld applies: Network: "10.5.0.0/16" -> "10.6.0.0/16"' in said[0]
    assert a.subnet == subnet
    assert a.pings(b)
    for host in (a, b):
        host.restart()
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: a.pings(b))
    assert str(a.subnet).startswith("10.6.")
    lab.eventually(lambda: "10.5." not in a.run("ip route"))


def test_another_backend_after_a_restart_leaves_nothing_of_the_old(lab):
    a, b = lab.hosts(2)
    subnet = a.subnet
    lab.set_config(GOOD)
    lab.eventually(lambda: 'Backend.Type: "vxlan" -> "host-gw"' in "".join(a.status().problems))
    for host in (a, b):
        host.restart()
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: a.pings(b))
    assert a.subnet == subnet
    lab.eventually(lambda: "flannel.1" not in a.run("ip link"))
