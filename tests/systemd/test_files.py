"""deploy/systemd: systemd takes the unit, the agent lives with what the unit leaves it, and the drop-ins name every
device that a backend makes."""

from __future__ import annotations

import asyncio
import configparser
import fnmatch
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from flannel_core.backend import Node
from flannel_core.backend_options import decode_options
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.lab import Lab
from flannel_core.netconf import parse_config
from flannel_core.objects import Link
from flannel_core.plugins import load_backend, names

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/systemd"
UNIT = DEPLOY / "flanneld.service"
FORWARDER = DEPLOY / "flannel-udp-forwarder.service"
FAMILIES = [(True, True), (True, False), (False, True)]


def parsed(file: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((DEPLOY / file).read_text())
    return parser


def patterns() -> dict[str, list[str]]:
    """By file: the names of the devices that it keeps its service's hands off."""
    managed = parsed("networkmanager.conf")["keyfile"]["unmanaged-devices+"].split(";")
    assert all(entry.startswith("interface-name:") for entry in managed)
    return {
        "10-flannel.network": parsed("10-flannel.network")["Match"]["Name"].split(),
        "10-flannel.link": parsed("10-flannel.link")["Match"]["OriginalName"].split(),
        "networkmanager.conf": [entry.removeprefix("interface-name:") for entry in managed],
    }


def devices(backend: str) -> Iterator[str]:
    """Of every family that it can carry."""
    for ipv4, ipv6 in FAMILIES:
        text = f'{{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv4": {str(ipv4).lower()}, '
        text += f'"EnableIPv6": {str(ipv6).lower()}, "Backend": {{"Type": "{backend}"}}}}'
        config = parse_config(text.encode(), "net-conf.json")
        four, six = ip_address("192.0.2.1") if ipv4 else None, ip_address("2001:db8::1") if ipv6 else None
        host = Host("eth0", 2, 1500, "02:00:5e:00:00:01", four, six, four, six)
        backend_class = load_backend(backend)
        made = backend_class(decode_options(config, backend_class, "net-conf.json"))
        try:
            announcement = asyncio.run(made.prepare(host, None, dry_run=True))
        except FlannelError:  # not this family, or not in this kernel
            continue
        yield from (item.name for item in made.local(Node(config, host, announcement)) if isinstance(item, Link))


@pytest.mark.parametrize("units", [[UNIT], [FORWARDER, FORWARDER.with_suffix(".socket")]], ids=["agent", "forwarder"])
def test_systemd_takes_the_units(tmp_path: Path, units: list[Path]) -> None:
    copies = [tmp_path / unit.name for unit in units]
    for unit, copy in zip(units, copies, strict=True):
        copy.write_text(unit.read_text().replace("/opt/flannel/bin", str(Path(sys.executable).parent)))
    verified = subprocess.run(["systemd-analyze", "verify", *copies], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_systemd_would_have_complained(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("RestartSec=2", "RestartSec=soon"))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert "Failed to parse sec value" in verified.stderr


def test_the_unit_says_what_the_agent_counts_on() -> None:
    unit = parsed("flanneld.service")
    service = unit["Service"]
    assert (service["Type"], service["Restart"], service["TimeoutStartSec"]) == ("notify", "always", "infinity")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert "network-online.target" in unit["Unit"]["After"].split()
    assert "docker.service" in unit["Unit"]["Before"].split()
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryPreserve"]) == ("flannel", "yes")
    assert service["StateDirectory"] == "flannel"
    assert "AF_NETLINK" in service["RestrictAddressFamilies"].split()


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_an_agent_gets_ready_and_repairs_with_no_more_than_the_unit_leaves_it(variant: str, tmp_path: Path) -> None:
    kept = [
        name.removeprefix("CAP_").lower()
        for name in parsed("flanneld.service")["Service"]["CapabilityBoundingSet"].split()
    ]
    confined = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(f'+{name}' for name in kept)}"]
    for part in ("", "-save", "-restore"):
        for program in ("iptables", "ip6tables"):
            (tmp_path / f"{program}{part}").symlink_to(shutil.which(f"{program}-{variant}{part}") or "/nowhere")
    with Lab() as lab:
        a, b = lab.hosts(2, backend="vxlan", ipv6=True, started=False)
        b.start()
        command = ["ip", "netns", "exec", a.namespace, *confined, *a.command(ip_masq=True, iptables_resync="1")]
        environment = {**a.environment, "PATH": f"{tmp_path}:{a.environment['PATH']}"}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            lab.eventually(lambda: a.subnet_file.exists() and a.status().ready)
            capabilities = Path(f"/proc/{process.pid}/status").read_text()
            a.run("ip link del flannel.1")
            a.run(f"iptables-{variant} -t nat -F")
            lab.eventually(lambda: a.pings(b))
            lab.eventually(lambda: "FLANNEL-POSTRTG" in a.run(f"iptables-{variant}-save -t nat"))
            problems = a.status().problems
        finally:
            process.terminate()
            process.wait(5)
    assert problems == ()
    assert re.search(rf"^CapEff:\s0*{sum(1 << NUMBERS[name] for name in kept):x}$", capabilities, re.MULTILINE)


def test_the_forwarder_works_with_no_capability_and_in_a_network_of_its_own() -> None:
    """What its .socket listens at and systemd hands it is its descriptor 3."""
    service, listening = parsed(FORWARDER.name)["Service"], socket.socket(socket.AF_UNIX)
    assert (service["CapabilityBoundingSet"], service["PrivateNetwork"], service["DynamicUser"]) == ("", "yes", "yes")
    as_nobody = (
        "unshare --net setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs"
        # It may read this checkout, wherever that is.
        " --bounding-set=-all,+dac_read_search --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
    )
    hand_over = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
    with Lab() as lab, listening:
        a, b = lab.hosts(2, backend="udp", options={"Mode": "userspace"}, started=False)
        a.directory.mkdir()
        listening.bind(str(a.directory / "udp-forwarder.sock"))
        listening.listen()
        program = str(Path(sys.executable).with_name("flannel-udp-forwarder"))
        command = [*as_nobody.split(), sys.executable, "-c", hand_over, str(listening.fileno()), program]
        environment = {**a.environment, "LISTEN_FDS": "1"}
        with subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()]) as forwarder:
            for host in (a, b):
                host.start()
            lab.wait_until_ready()
            lab.eventually(lambda: a.pings(b) and b.pings(a))
            a.restart()
            assert a.pings(b)
            assert forwarder.poll() is None
            forwarder.kill()


NUMBERS = {"net_admin": 12, "net_raw": 13, "sys_ptrace": 19}
"""linux/capability.h."""


@pytest.mark.parametrize("file", ["10-flannel.network", "10-flannel.link", "networkmanager.conf"])
def test_the_drop_ins_name_every_device_that_a_backend_makes_and_the_containers(file: str) -> None:
    made = [device for backend in names("backend") for device in devices(backend)]
    assert {"flannel.1", "flannel-v6.1"} <= set(made)
    for device in [*made, "cni0", "veth1a2b3c4d"]:
        assert any(fnmatch.fnmatchcase(device, pattern) for pattern in patterns()[file]), device


@pytest.mark.parametrize("device", ["eth0", "ens3", "enp1s0", "wlan0", "bond0", "docker0", "br-lan", "tun0"])
def test_the_drop_ins_leave_the_hosts_own_devices_to_its_services(device: str) -> None:
    assert not [p for found in patterns().values() for p in found if fnmatch.fnmatchcase(device, p)]


def test_networkd_and_udev_are_told_what_to_leave() -> None:
    assert parsed("10-flannel.network")["Link"]["Unmanaged"] == "yes"
    assert parsed("10-flannel.link")["Link"]["MACAddressPolicy"] == "none"
    network = parsed("networkd.conf")["Network"]
    assert (network["ManageForeignRoutes"], network["ManageForeignRoutingPolicyRules"]) == ("no", "no")


def test_every_file_is_installed_by_the_readme_under_a_name_that_its_service_reads() -> None:
    readme = (DEPLOY / "README.md").read_text()
    installed = dict(re.findall(r"^install -Dm644 (\S+) (\S+)$", readme, flags=re.MULTILINE))
    files = {path.name for path in DEPLOY.iterdir()} - {"README.md"}
    assert installed.keys() == files
    for file, place in installed.items():
        suffix = ".conf" if file.endswith(".conf") else Path(file).suffix
        assert place.endswith(suffix), place
    assert Path(installed["10-flannel.link"]).name < "99-default.link"


def test_docker_starts_after_the_agent_with_the_options_that_flannelctl_writes(tmp_path: Path) -> None:
    drop_in = (DEPLOY / "docker.conf").read_text()
    (tmp_path / "docker.service.d").mkdir()
    (tmp_path / "docker.service").write_text("[Service]\nType=notify\nExecStart=/bin/false\n")
    program = Path(sys.executable).with_name("flannelctl")
    here = drop_in.replace("/opt/flannel/bin/flannelctl", str(program)).replace("/usr/bin/dockerd", "/bin/true")
    (tmp_path / "docker.service.d/10-flannel.conf").write_text(here)
    (tmp_path / "flanneld.service").write_text("[Service]\nExecStart=/bin/true\n")
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "docker.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    subnet_env, written = tmp_path / "subnet.env", tmp_path / "docker_options.env"
    subnet_env.write_text("FLANNEL_SUBNET=10.5.43.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
    words = re.findall(r"^ExecStartPre=\S+ (.*)$", drop_in, flags=re.MULTILINE)[0]
    command = [program, *words.replace("/run/flannel/docker_options.env", str(written)).split(), "-f", subnet_env]
    for _ in range(2):
        subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=True)
    options = re.findall(r"\$(\w+)", drop_in)
    assert [line.partition("=")[0] for line in written.read_text().splitlines()] == options
