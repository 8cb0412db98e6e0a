"""A restart with another backend, VNI or Network: nothing of the old one is left, wherever it was."""

import shutil
from pathlib import Path

import pytest

BOARD = {"Network": "10.5.0.0/16", "Backend": {"Type": "board"}}


def network(number, **backend):
    return {"Network": f"10.{number}.0.0/16", "Backend": {"Type": "vxlan", **backend}}


@pytest.fixture
def board(tmp_path):
    """The backend of flannel_backend_board.py, installed where PYTHONPATH leads to."""
    installed = tmp_path / "site"
    info = installed / "flannel_backend_board-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flannel-backend-board\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[flannel.backends]\nboard = flannel_backend_board\n")
    shutil.copy(Path(__file__).with_name("flannel_backend_board.py"), installed)
    return installed


def restart_with(lab, hosts, config):
    for host in hosts:
        host.stop()
    lab.set_config(config)
    for host in hosts:
        host.start()
    lab.wait_until_ready(hosts)
    lab.eventually(lambda: hosts[0].pings(hosts[1]) and hosts[1].pings(hosts[0]))


def of_flannel(host):
    """What a host shows of any flannel: devices, routes, neighbours, FDB entries, rules."""
    commands = ("ip -o link", "ip route", "ip -6 route", "ip neigh show nud permanent", "bridge fdb show")
    return "".join(map(host.run, (*commands, "iptables-save", "ip6tables-save")))


def test_what_a_backend_put_elsewhere_than_into_the_kernel_goes_with_it(lab, board):
    hosts = a, b = lab.hosts(2, configured=False, started=False)
    for host in hosts:
        host.environment = {**host.environment, "PYTHONPATH": str(board)}
    lab.set_config(BOARD)
    for host in hosts:
        host.start()
    lab.wait_until_ready()
    note = a.directory / "board" / str(b.subnet).replace("/", "-")
    lab.eventually(lambda: note.read_text() == str(b.machine.ipv4.ip))
    restart_with(lab, hosts, network(5))
    lab.eventually(lambda: not (a.directory / "board").exists())


def test_a_backend_that_is_not_installed_any_more_is_named_and_its_own_stays(lab, board):
    hosts = a, _ = lab.hosts(2, configured=False, started=False)
    for host in hosts:
        host.environment = {**host.environment, "PYTHONPATH": str(board)}
    lab.set_config(BOARD)
    for host in hosts:
        host.start()
    lab.wait_until_ready()
    lab.eventually(lambda: list((a.directory / "board").iterdir()))
    shutil.rmtree(board)
    restart_with(lab, hosts, network(5))
    assert "What backend board has left behind stays" in a.log()
    assert list((a.directory / "board").iterdir())


def test_another_vni_after_a_restart(lab):
    hosts = a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    subnet = a.subnet
    restart_with(lab, hosts, network(5, VNI=7))
    assert a.subnet == subnet
    lab.eventually(lambda: "flannel.1" not in of_flannel(a).replace("flannel.7", ""))
    assert "flannel.7" in of_flannel(a)


def test_another_network_after_a_restart_leaves_no_lease_route_or_rule_of_the_old(lab):
    hosts = a, b = lab.hosts(2)
    for host in hosts:
        host.options = {**host.options, "ip-masq": True}
        host.restart()
    lab.wait_until_ready()
    lab.eventually(lambda: a.pings(b) and "10.5.0.0/16" in a.run("iptables-save"))
    restart_with(lab, hosts, network(6))
    lab.eventually(lambda: "10.5." not in of_flannel(a))
    assert {str(subnet)[:5] for lease in a.store.leases().leases for subnet in lease.subnets} == {"10.6."}


def test_both_at_once(lab):
    hosts = a, b = lab.hosts(2, backend="host-gw", ipv6=True)
    lab.eventually(lambda: a.pings(b))
    restart_with(lab, hosts, network(6, VNI=9))
    lab.eventually(lambda: not any(old in of_flannel(a) for old in ("10.5.", "fc00:5:")))
