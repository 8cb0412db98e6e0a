"""The plugin as `make cni` built it on hosts of a lab, called as a runtime calls it, beside the agents that it asks."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flannel_core.flannelctl.install_cni_command import built_program
from flannel_core.lab import Host, Lab
from flannel_core.lab.network import NAMESPACES, execute, inside, ip_batch, make_namespaces


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab


@pytest.fixture
def program() -> Path:
    path = Path(os.environ.get("FLANNEL_CNI_PROGRAM") or built_program())
    assert path.exists(), f"{path} is missing: run `make cni`"
    return path


class Container:
    """On a host of the lab, by way of the plugins that a runtime calls one after the other."""

    def __init__(self, host: Host, program: Path, port: int) -> None:
        self.host = host
        self.namespace = f"{host.namespace}-{secrets.token_hex(2)}"
        self.paths = f"{program.parent}:/usr/lib/cni"
        self.flannel = {
            "cniVersion": "1.0.0",
            "name": "cbr0",
            "type": "flannel",
            "subnetFile": str(host.subnet_file),
            "dataDir": str(host.directory / "cni"),
            "ipam": {"dataDir": str(host.directory / "networks")},
            "delegate": {"isDefaultGateway": True},
        }
        mappings = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
        self.portmap = {
            "cniVersion": "1.0.0",
            "name": "cbr0",
            "type": "portmap",
            "runtimeConfig": {"portMappings": mappings},
        }
        self.result: dict[str, Any] = {}

    def call(self, command: str, plugin: str, config: dict[str, Any], code: int = 0) -> Any:
        """What the plugin answers, which ends with ``code``."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.namespace,
            "CNI_NETNS": str(NAMESPACES / self.namespace),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self.paths,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        done = subprocess.run(
            ["ip", "netns", "exec", self.host.namespace, plugin],
            env=environment,
            input=json.dumps(config).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done
        return json.loads(done.stdout or "null")

    def add(self, program: Path) -> None:
        make_namespaces([self.namespace])
        self.result = self.call("ADD", str(program), self.flannel)
        self.call("ADD", "/usr/lib/cni/portmap", {**self.portmap, "prevResult": self.result})

    def remove(self, program: Path) -> None:
        self.call("DEL", "/usr/lib/cni/portmap", self.portmap)
        self.call("DEL", str(program), self.flannel)
        ip_batch([f"netns del {self.namespace}"])

    @property
    def address(self) -> str:
        address: str = self.result["ips"][0]["address"]
        return address.partition("/")[0]

    def pings(self, other: Container) -> bool:
        execute(self.namespace, f"ping -c 1 -W 2 {other.address}", {"PATH": "/usr/bin:/bin"})
        return True


def connected(host: Host) -> socket.socket:
    assert host.machine.ipv4
    return socket.create_connection((str(host.machine.ipv4.ip), 8080), timeout=5)


def test_containers_on_two_hosts_ping_and_a_published_port_is_reached(lab: Lab, program: Path) -> None:
    hosts = lab.hosts(2, backend="vxlan")
    for host in hosts:
        host.run("ip link del cni0")  # the lab's own pod has the bridge and the addresses that the plugin will take
    a, b = (Container(host, program, 8080) for host in hosts)
    for container in (a, b):
        container.add(program)
    assert lab.eventually(lambda: a.pings(b))
    assert lab.eventually(lambda: b.pings(a))

    server = inside(b.namespace, lambda: socket.create_server(("0.0.0.0", 80)))
    with server, inside(hosts[0].namespace, lambda: connected(hosts[1])) as client:
        with server.accept()[0] as served:
            served.sendall(b"hello")
        assert client.recv(5) == b"hello"
    for container in (a, b):
        container.remove(program)
    for host in hosts:
        assert list((host.directory / "cni").iterdir()) == []
        assert not list((host.directory / "networks/cbr0").glob("10.*"))
        assert "8080" not in host.run("iptables-save -t nat")


def test_without_subnet_env_the_plugin_says_what_the_agent_waits_for(lab: Lab, program: Path) -> None:
    (host,) = lab.hosts(1, configured=False)
    lab.eventually(lambda: "no network configuration yet" in (host.status().waiting_for or ""))
    container = Container(host, program, 8080)
    refused = container.call("ADD", str(program), container.flannel, code=1)
    assert refused["code"] == 999
    waits_for = host.status().waiting_for
    assert refused["msg"].endswith(f"no such file or directory. flanneld on this node waits for {waits_for}.")
