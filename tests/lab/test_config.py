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
