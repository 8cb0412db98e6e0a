"""Hosts made of network namespaces: two cards, each with a wire to a neighbour."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator

import pytest

_numbers = itertools.count()


class Namespace:
    """A network namespace of its own; ``run`` runs a command in it."""

    def __init__(self) -> None:
        self.name = f"fh-{os.getpid()}-{next(_numbers)}"
        _run("ip", "netns", "add", self.name)
        self.run("ip link set lo up")

    def run(self, command: str) -> str:
        return _run(*self.enter(*command.split()))

    def enter(self, *command: str) -> list[str]:
        """The command that runs ``command`` in here."""
        return ["ip", "netns", "exec", self.name, *command]

    def remove(self) -> None:
        _run("ip", "netns", "del", self.name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.remove()


@pytest.fixture
def other_namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.remove()


@pytest.fixture
def host(namespace: Namespace, other_namespace: Namespace) -> Namespace:
    """eth0 192.0.2.11/24, fc00::11/64 with both default routes, eth1 198.51.100.11/24, fc01::11/64."""
    for name, ipv4, ipv6 in (("eth0", "192.0.2.11/24", "fc00::11/64"), ("eth1", "198.51.100.11/24", "fc01::11/64")):
        namespace.run(f"ip link add {name} type veth peer name {name} netns {other_namespace.name}")
        namespace.run(f"ip addr add {ipv4} dev {name}")
        namespace.run(f"ip addr add {ipv6} dev {name} nodad")
        namespace.run(f"ip link set {name} up")
        other_namespace.run(f"ip link set {name} up")
    namespace.run("ip route add default via 192.0.2.1")
    namespace.run("ip route add default via fc00::1")
    return namespace
