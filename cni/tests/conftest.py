"""A node without an agent: a network namespace, a subnet.env, Debian's plugins, and the plugin as it is installed."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flannel_core.flannelctl.install_cni_command import built_program
from flannel_core.lab.network import NAMESPACES, ip_batch, make_namespaces

DELEGATES = Path("/usr/lib/cni")
"""Debian's package containernetworking-plugins."""
SUBNET_ENV = """\
FLANNEL_NETWORK=10.5.0.0/16
FLANNEL_SUBNET=10.5.43.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
TIMES_OUT_SECONDS = 120


class Answer(NamedTuple):
    """What the plugin left behind: its exit code, its answer, what it said beside."""

    code: int
    out: bytes
    said: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> tuple[int, str]:
        assert self.code == 1, self
        return self.json["code"], self.json["msg"]


class Node:
    """A host of its own, in ``namespace``; ``directory`` holds its files, ``bin`` its plugins."""

    def __init__(self, directory: Path, program: Path, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.data = directory / "data"
        self.addresses = directory / "networks"
        self.subnet_env = directory / "subnet.env"
        self.subnet_env.write_text(SUBNET_ENV)
        self.containers: list[str] = []
        for path in (*DELEGATES.iterdir(), program):
            (self.bin / path.name).symlink_to(path)

    def config(self, **keys: Any) -> dict[str, Any]:
        """Of the network "podnet"; ``keys`` are added, those that are None left out."""
        given = {
            "cniVersion": "1.0.0",
            "name": "podnet",
            "type": "flannel",
            "subnetFile": str(self.subnet_env),
            "dataDir": str(self.data),
            "ipam": {"dataDir": str(self.addresses)},
            **keys,
        }
        return {key: value for key, value in given.items() if value is not None}

    def container(self, name: str) -> Path:
        """A container without a network, and the path of its namespace."""
        namespace = f"{self.namespace}-{name}"
        if namespace not in self.containers:
            make_namespaces([namespace])
            self.containers.append(namespace)
        return NAMESPACES / namespace

    def call(
        self,
        command: str,
        container: str = "c1",
        *,
        config: Mapping[str, Any] | str | bytes | None = None,
        plugin: str = "flannel",
        environment: Mapping[str, str | None] = {},
        **keys: Any,
    ) -> Answer:
        """Call a plugin as a runtime does, with ``config`` or that of :meth:`config` with ``keys``."""
        wanted: dict[str, str | None] = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(NAMESPACES / f"{self.namespace}-{container}"),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "PATH": os.environ["PATH"],
            **environment,
        }
        text = config if config is not None else self.config(**keys)
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, self.bin / plugin],
            input=text
            if isinstance(text, bytes)
            else text.encode()
            if isinstance(text, str)
            else json.dumps(text).encode(),
            env={name: value for name, value in wanted.items() if value is not None},
            capture_output=True,
            timeout=TIMES_OUT_SECONDS,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr.decode())

    def add(self, container: str = "c1", **keys: Any) -> Answer:
        self.container(container)
        return self.call("ADD", container, **keys)

    def noted(self) -> list[str]:
        """The names of the state files."""
        return sorted(path.name for path in self.data.glob("*"))

    def leased(self, network: str = "podnet") -> list[str]:
        """The addresses that host-local has given away."""
        return sorted(path.name for path in (self.addresses / network).glob("[0-9]*"))

    def devices(self) -> set[str]:
        """All but those that every namespace has."""
        listed = subprocess.run(["ip", "-n", self.namespace, "-json", "link"], capture_output=True, check=True).stdout
        return {link["ifname"] for link in json.loads(listed)} - {"lo"}

    def fake(self, name: str, script: str) -> None:
        """A delegate that is a shell script: for what no real one does when it is asked to."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture(scope="session")
def program() -> Path:
    """What `make cni` built."""
    path = Path(os.environ.get("FLANNEL_CNI_PROGRAM") or built_program())
    assert path.exists(), f"{path} is missing: run `make cni`"
    return path


@pytest.fixture
def node(tmp_path: Path, program: Path) -> Iterator[Node]:
    namespace = f"cni-{secrets.token_hex(3)}"
    make_namespaces([namespace])
    there = Node(tmp_path, program, namespace)
    try:
        yield there
    finally:
        ip_batch(f"netns del {name}" for name in [*there.containers, namespace])
