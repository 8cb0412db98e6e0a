"""flannelctl plan --config: what a restart with another net-conf.json would change, and that it then does."""

import json
import subprocess

import pytest

from flannel_core.lab.programs import FLANNELCTL

NETWORK = "10.5.0.0/16"


def plan(host, config, *words):
    command = ["ip", "netns", "exec", host.namespace, FLANNELCTL, "plan", "--config", "-", *words]
    return subprocess.run(
        [*command, "--subnet-file", host.subnet_file],
        input=config if isinstance(config, str) else json.dumps(config),
        capture_output=True,
        text=True,
        env=dict(host.environment),
    )


def everything(host):
    files = {path: path.read_bytes() for path in host.directory.iterdir() if path.suffix in (".env", ".json")}
    return files, host.run("ip -d -o link show type vxlan"), host.run("ip route"), host.store.leases()


@pytest.mark.drawn(1)
@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_another_backend_is_planned_before_and_done_after_the_restart(lab, store):
    a, b = lab.hosts(2, store=store)
    lab.eventually(lambda: a.pings(b) and a.plan() == [])
    before, log = everything(a), a.log()
    config = {"Network": NETWORK, "Backend": {"Type": "host-gw"}}
    done = plan(a, config)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'standard input: Backend.Type: "vxlan" -> "host-gw"' in done.stdout
    assert "Only a restart of the agent applies this." in done.stdout
    assert "give up" not in done.stdout
    removed = [line for line in done.stdout.splitlines() if line.startswith("remove")]
    assert any("link flannel.1 type vxlan" in line for line in removed)
    assert not any("before the store has listed" in line for line in removed)
    after = everything(a)
    assert after[:3] == before[:3]
    assert after[3].revision == before[3].revision
    assert a.log() == log

    lab.set_config(config)
    lab.eventually(lambda: "`flannelctl config show | flannelctl plan --config -`" in " ".join(a.status().problems))
    for host in (a, b):
        host.restart()
    lab.wait_until_ready([a, b])
    lab.eventually(lambda: "flannel.1" not in a.run("ip link") and a.pings(b))
    same = plan(a, config)
    assert same.stdout == "standard input: the same as what is in use\n\nNothing would change on this host.\n"


def test_another_network_means_another_subnet(lab):
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    found = json.loads(plan(a, {"Network": "10.77.0.0/16", "Backend": {"Type": "vxlan"}}, "--json").stdout)
    assert found["live"] is False
    assert 'Network: "10.5.0.0/16" -> "10.77.0.0/16"' in found["changes"]
    assert found["subnets"] == [str(a.subnet)]
    (then,) = found["subnets_then"]
    assert then.startswith("10.77.")
    lines = [(line["action"], line["object"]) for line in found["lines"]]
    assert ("create", f"address {then.removesuffix('/24')}/32 dev flannel.1") in lines
    assert ("remove", f"address {a.subnet.network_address}/32 dev flannel.1") in lines
    assert any(action == "remove" and f"route {b.subnet} via" in item for action, item in lines)
    assert not any("link flannel.1" in item for _, item in lines)
    said = plan(a, {"Network": "10.77.0.0/16", "Backend": {"Type": "vxlan"}}).stdout
    assert f"This host would give up {a.subnet} and take a subnet such as 10.77." in said


def test_what_the_agent_would_apply_by_itself_is_told_apart(lab):
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    done = plan(a, {"Network": NETWORK, "Backend": {"Type": "vxlan", "DirectRouting": True}})
    assert "The running agent would apply this by itself." in done.stdout
    assert f"change  route {b.subnet} via {b.machine.ipv4.ip} dev eth0" in done.stdout


@pytest.mark.drawn(3)
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "standard input: "),
        ({"Network": "10.5.0.0/29"}, "Network is"),
        ({"Network": NETWORK, "Backend": {"Type": "vxlan", "VNI": -1}}, "Backend.VNI is -1"),
        ({"Network": NETWORK, "Backend": {"Type": "teleport"}}, "the backend 'teleport' is not installed"),
        ({"Network": "10.5.0.0/31", "SubnetLen": 32, "Backend": {"Type": "vxlan"}}, "standard input: "),
    ],
)
def test_what_flanneld_could_not_run_with_is_named_and_not_tried(lab, config, message):
    (a,) = lab.hosts(1)
    refused = plan(a, config)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert message in refused.stderr


def test_where_a_start_would_wait_the_reason_is_told(lab):
    a, b = lab.hosts(2)
    config = {
        "Network": "10.77.0.0/16",
        "SubnetMin": "10.77.1.0",
        "SubnetMax": "10.77.1.0",
        "Backend": {"Type": "vxlan"},
    }
    a.stop()
    lab.set_config(config)
    a.start()
    lab.wait_until_ready([a])
    refused = plan(b, config)
    assert refused.returncode == 1
    assert refused.stderr.startswith("flannelctl: out of subnets: all 1 of length /24")
    assert "Traceback" not in b.log()


def test_without_an_agent_it_says_how_to_start_one(lab):
    (a,) = lab.hosts(1)
    a.stop()
    refused = plan(a, {"Network": NETWORK, "Backend": {"Type": "vxlan"}})
    assert refused.returncode == 1
    assert "no agent runs behind" in refused.stderr
