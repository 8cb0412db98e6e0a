"""Record what Go flannel asks of a Kubernetes API server and writes there, as facts for tests/lab/test_kubernetes.py.

    sudo .venv/bin/python tests/interop/record_kubernetes.py /path/to/flanneld [tests/data/go-flannel-kubernetes]

One JSON file per case: net-conf.json, and per host its podCIDRs, flannel's annotations as they stand in the node, the
condition, subnet.env, and every request in order. With ``KUBE_APISERVER`` a real one is asked and the requests are not
known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

from record import CASES

from flannel_core.lab import Host, Lab
from flannel_core.lab.kubernetes import KubernetesServer
from flannel_core.lab.kubernetes.api import Asked

PREFIX = "flannel.alpha.coreos.com/"


def main() -> int:
    flanneld = Path(sys.argv[1])
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else "tests/data/go-flannel-kubernetes")
    directory.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([flanneld, "--version"], capture_output=True, text=True, check=True).stderr.strip()
    for name, case in CASES.items():
        facts = {"flanneld": version, **record(flanneld, **{**case, "n": 2})}
        (directory / f"{name}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {len(facts['hosts'])} nodes")
    return 0


def record(flanneld: Path, **network: Any) -> dict[str, Any]:
    with Lab() as lab:
        hosts = lab.hosts(store="kubernetes", started=False, **network)
        server = hosts[0].store.server
        asked: list[list[Asked]] = []
        for host in hosts:
            if isinstance(server, KubernetesServer):
                server.forget_requests()
            host.runs(flanneld)
            host.start()
            lab.wait_until_ready([host])
            lab.eventually(lambda host=host: "FlannelIsUp" in json.dumps(server.node(host.name)["status"]))
            asked.append(server.requests() if isinstance(server, KubernetesServer) else [])
        if network["backend"] in ("vxlan", "host-gw"):
            lab.eventually(lambda: all(a.pings(b) for a, b in permutations(hosts, 2)))
        return {
            "config": hosts[0].store.net_conf.read_text(),
            "hosts": [
                facts_of(host, server.node(host.name), of_host) for host, of_host in zip(hosts, asked, strict=True)
            ],
        }


def facts_of(host: Host, node: dict[str, Any], asked: list[Asked]) -> dict[str, Any]:
    annotations = node["metadata"]["annotations"].items()
    (condition,) = [c for c in node["status"]["conditions"] if c["type"] == "NetworkUnavailable"]
    return {
        "name": host.name,
        "podCIDRs": node["spec"]["podCIDRs"],
        "annotations": {name: text for name, text in sorted(annotations) if name.startswith(PREFIX)},
        "condition": {name: text for name, text in condition.items() if not name.endswith("Time")},
        "subnet.env": host.subnet_file.read_text(),
        "requests": [
            {"verb": each.verb, "resource": each.resource, "name": each.name, "query": each.query}
            | ({"content_type": each.content_type, "body": each.body} if each.body else {})
            for each in asked
            if not each.name or each.name == host.name
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
