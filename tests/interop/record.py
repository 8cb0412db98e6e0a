"""Record what Go flannel writes, as facts for tests/pure/test_go_data.py.

    sudo .venv/bin/python tests/interop/record.py /path/to/flanneld [tests/data/go-flannel]

One JSON file per case: net-conf.json, every entry in etcd as text, and per host subnet.env and what the kernel holds,
once as ``ip`` shows it to a person and once as the netlink messages themselves, in hexadecimal.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

from flannel_core.lab import Host, Lab
from flannel_core.lab.network import inside
from flannel_core.lease import FAMILIES
from flannel_core.netlink import addresses, links, neighbours, routes
from flannel_core.netlink.devices import link_names
from flannel_core.netlink.message import Message
from flannel_core.netlink.socket import NetlinkSocket
from flannel_core.objects import MAIN_TABLE

PREFIX = "/coreos.com/network"
EXTENSION = {
    "PreStartupCommand": 'echo <flannel> & "quoted"',
    "SubnetAddCommand": "true",
    "SubnetRemoveCommand": "true",
}
CASES: dict[str, dict[str, Any]] = {
    "vxlan-ipv4": {"backend": "vxlan"},
    "vxlan-ipv6": {
        "backend": "vxlan",
        "ipv4": False,
        "ipv6": True,
        "n": 1,
    },  # a second one would take the first's lease
    "vxlan-dual": {"backend": "vxlan", "ipv6": True},
    "vxlan-options": {"backend": "vxlan", "options": {"VNI": 4096, "Port": 4789, "MTU": 1400, "GBP": True}},
    "vxlan-direct-routing": {"backend": "vxlan", "ipv6": True, "options": {"DirectRouting": True}},
    "host-gw-ipv4": {"backend": "host-gw"},
    "host-gw-dual": {"backend": "host-gw", "ipv6": True},
    "alloc-ipv4": {"backend": "alloc"},
    "alloc-dual": {"backend": "alloc", "ipv6": True},
    "udp": {"backend": "udp"},
    "extension": {"backend": "extension", "options": EXTENSION},
}
SHOWN = (
    "ip -details link show",
    "ip address show",
    "ip -4 route show",
    "ip -6 route show",
    "ip neigh show nud permanent",
    "bridge fdb show",
)


def main() -> int:
    flanneld = Path(sys.argv[1])
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else "tests/data/go-flannel")
    directory.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([flanneld, "--version"], capture_output=True, text=True, check=True).stderr.strip()
    for name, case in CASES.items():
        facts = {"flanneld": version, **record(flanneld, **case)}
        (directory / f"{name}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {len(facts['entries'])} entries")
    return 0


def record(flanneld: Path, *, n: int = 2, **network: Any) -> dict[str, Any]:
    with Lab() as lab:
        hosts = lab.hosts(n, store="etcd", started=False, **network)
        for host in hosts:
            host.runs(flanneld)
            host.start()
            lab.wait_until_ready([host])
        if network["backend"] in ("vxlan", "host-gw"):
            lab.eventually(lambda: all(a.pings(b) for a, b in permutations(hosts, 2)))
        found = json.loads(hosts[0].store.cluster.control("get", "--prefix", PREFIX, "--write-out=json"))
        entries = {text(entry["key"]): text(entry["value"]) for entry in found["kvs"]}
        return {
            "config": entries.pop(f"{PREFIX}/config"),
            "entries": {key.removeprefix(f"{PREFIX}/subnets/"): value for key, value in entries.items()},
            "hosts": [facts_of(host) for host in hosts],
        }


def facts_of(host: Host) -> dict[str, Any]:
    return {
        "subnet.env": host.subnet_file.read_text(),
        "shown": {command: host.run(command).splitlines() for command in SHOWN},
        "netlink": [f"{message.type} {message.body.hex()}" for message in inside(host.namespace, dump)],
    }


def dump() -> list[Message]:
    """Links first, then all that lies on eth0 and on devices of flannel's name."""
    with NetlinkSocket() as kernel:
        found = kernel.dump(links.dump())
        names = link_names(found)
        concerned = {index for index, name in names.items() if name == "eth0" or name.startswith("flannel")}
        found = [message for message in found if links.decode_name(message)[1] in concerned]
        found += [m for m in kernel.dump(addresses.dump()) if addresses.decode(m).index in concerned]
        for index in concerned:
            found += kernel.dump(neighbours.dump_neighbours(index)) + kernel.dump(neighbours.dump_fdb(index))
            for family in FAMILIES:
                found += kernel.dump(routes.dump(family, table=MAIN_TABLE, index=index))
    return found


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


if __name__ == "__main__":
    sys.exit(main())
