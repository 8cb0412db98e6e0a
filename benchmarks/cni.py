"""What the CNI plugin costs a container: its ADD, beside that of its delegate alone and of Go's plugin, in turn.

    .venv/bin/python benchmarks/cni.py [--peer /path/to/Go's/flannel] [--runs 20]

Prints medians in milliseconds, what each costs over the delegate, and the ratios. Everything is in network namespaces
of its own; the delegates are Debian's (containernetworking-plugins), the plugin the one that `make cni` has built.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flannel_core.errors import FlannelError
from flannel_core.flannelctl.install_cni_command import built_program
from flannel_core.lab.network import NAMESPACES, inside, ip_batch, make_namespaces

DELEGATES = Path("/usr/lib/cni")
ROW = "{:<14} {:>22} {:>18} {:>16} {:>14}"


class Bench:
    """A host and a container, and who is called for it."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace
        self.environment = {
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": str(NAMESPACES / f"{namespace}-c1"),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(DELEGATES),
            "PATH": os.environ["PATH"],
        }
        env = directory / "subnet.env"
        env.write_text(
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.43.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
        ipam = {"dataDir": str(directory / "networks")}
        common = {"cniVersion": "0.3.1", "name": "cbr0"}
        self.flannel = {
            **common,
            "type": "flannel",
            "subnetFile": str(env),
            "dataDir": str(directory / "data"),
            "ipam": ipam,
            "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        }
        self.bridge = {
            **common,
            **{"type": "bridge", "hairpinMode": True, "isDefaultGateway": True, "isGateway": True},
            **{"ipMasq": False, "mtu": 1450},
            "ipam": {
                **ipam,
                "type": "host-local",
                "ranges": [[{"subnet": "10.5.43.0/24"}]],
                "routes": [{"dst": "10.5.0.0/16"}],
            },
        }

    def add(self, program: Path, config: dict[str, Any]) -> float:
        """Milliseconds that an ADD takes; what it made is taken away again."""
        milliseconds = self._call("ADD", program, config)
        self._call("DEL", program, config)
        return milliseconds

    def _call(self, command: str, program: Path, config: dict[str, Any]) -> float:
        text = json.dumps(config).encode()
        environment = {**self.environment, "CNI_COMMAND": command}
        begun = time.perf_counter()
        done = inside(
            self.namespace,
            lambda: subprocess.run([program], env=environment, input=text, capture_output=True, check=False),
        )
        milliseconds = (time.perf_counter() - begun) * 1000
        if done.returncode:
            raise FlannelError(f"{program} {command}: {done.stdout.decode()}{done.stderr.decode()}")
        return milliseconds


def main() -> int:
    parser = argparse.ArgumentParser(description="ADD of the CNI plugin, beside its delegate's and Go's.")
    parser.add_argument("--peer", type=Path, help="Go's plugin")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    program = Path(os.environ.get("FLANNEL_CNI_PROGRAM") or built_program())
    if not program.exists():
        print(f"{program} is missing: run `make cni`", file=sys.stderr)
        return 1
    namespace = f"cni-{secrets.token_hex(3)}"
    names = [namespace, f"{namespace}-c1"]
    make_namespaces(names)
    try:
        with tempfile.TemporaryDirectory() as directory:
            measure(Bench(Path(directory), namespace), program, options.peer, options.runs)
    finally:
        ip_batch(f"netns del {name}" for name in names)
    return 0


def measure(bench: Bench, program: Path, peer: Path | None, runs: int) -> None:
    calls: dict[str, Callable[[], float]] = {
        "delegate alone": lambda: bench.add(DELEGATES / "bridge", bench.bridge),
        "ours": lambda: bench.add(program, bench.flannel),
    }
    if peer is not None:
        calls["Go"] = lambda: bench.add(peer, bench.flannel)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            milliseconds = call()
            if run:  # the first one makes the bridge and fills the caches
                times[name].append(milliseconds)
    print(ROW.format(f"{runs} ADDs", "ms (least to most)", "over the delegate", "least over least", "of delegate's"))
    alone = statistics.median(times["delegate alone"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(
            ROW.format(
                name,
                f"{median:.1f} ({min(taken):.1f} to {max(taken):.1f})",
                f"{median - alone:.1f}",
                f"{min(taken) - min(times['delegate alone']):.1f}",
                f"{median / alone:.2f}",
            )
        )
    if peer is not None:
        print(f"ours / Go's: {statistics.median(times['ours']) / statistics.median(times['Go']):.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
