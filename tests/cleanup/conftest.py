"""Labs whose hosts run flannelctl."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flannel_core.lab import Host, Lab
from flannel_core.lab.programs import FLANNELCTL


class Ended:
    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.exit_code = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        assert "Traceback" not in self.err
        assert "mistake of flannelctl" not in self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


MOVING = re.compile(" cni0|^33:33:")
"""What the lab's container engine changes, and groups that the kernel joins when IPv6 forwarding is switched on."""


def flannelctl(host: Host, *words: str) -> Ended:
    """Run on ``host``, without a terminal."""
    command = ["ip", "netns", "exec", host.namespace, str(FLANNELCTL), *words]
    return Ended(
        subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=dict(host.environment))
    )


@pytest.fixture
def cleanup() -> Callable[..., Ended]:
    """Of a host's own state directory."""
    return lambda host, *words: flannelctl(host, "cleanup", "--subnet-file", str(host.subnet_file), *words)


class State(dict[str, str]):
    """What commands print."""

    def changes(self, host: Host) -> dict[str, str]:
        """By command: what is other on ``host`` now."""
        now = state_of(host)
        return {
            command: "\n".join(difflib.unified_diff(text.splitlines(), now[command].splitlines(), lineterm="", n=0))
            for command, text in self.items()
            if text != now[command]
        }


@pytest.fixture
def state() -> Callable[[Host], State]:
    return state_of


def state_of(host: Host) -> State:
    """All that flannel changes on a host, without times."""
    links = [link for link in json.loads(host.run("ip -d -j link")) if not link["ifname"].startswith("cni0")]
    found = State({"ip -d link": json.dumps(links, indent=1)})
    for command in ("ip route", "ip -6 route", "ip neigh show nud permanent", "bridge fdb"):
        found[command] = "".join(line for line in host.run(command).splitlines(True) if not MOVING.search(line))
    for command in ("iptables-save", "ip6tables-save", "iptables-legacy-save", "nft list ruleset"):
        found[command] = re.sub(r"^#.*\n", "", host.run(command), flags=re.MULTILINE)
    return found


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as the_lab:
        yield the_lab
