"""The udp backend's forwarder beside Go flannel's proxy: throughput of TCP, packets per second of small UDP.

Two labs of two hosts, one with each program, measured in turn; prints each pair and the medians. The ratios are what
counts: both share this machine with whatever else runs. Needs iperf3 (`apt-get install iperf3`) and FLANNELD_GO.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

from flannel_core.lab import Host, Lab
from flannel_core.lab.network import inside

UDP_SEGMENT = 103
"""linux/udp.h."""
SMALL = 64
"""Bytes of payload."""
AT_ONCE = 64
"""Packets that the flood hands to the kernel in one call: it must cost less than what it measures."""
POLITE = 10
"""Niceness of the flood, which would take a whole processor from the forwarders."""
SINK_PORT = 5300


def throughput(source: Host, target: Host, seconds: float) -> float:
    """Gbit/s of one TCP connection between their pods, by iperf3."""
    serve = ["ip", "netns", "exec", target.pod.namespace, "iperf3", "--server", "--one-off", "--forceflush"]
    ask = ["ip", "netns", "exec", source.pod.namespace, "iperf3", "--json", "--time", str(seconds), "--client"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        done = subprocess.run([*ask, target.pod.addresses[4]], capture_output=True, text=True, check=True)
        server.communicate()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def packets_per_second(source: Host, target: Host, seconds: float) -> float:
    """Datagrams of SMALL bytes that reach the other's pod while this one's sends as many as it can."""
    context = get_context("fork")
    over = context.Event()
    sink = inside(target.pod.namespace, _sink)
    flood = context.Process(target=_flood, args=(source.pod.namespace, target.pod.addresses[4], over))
    flood.start()
    try:
        _wait(lambda: _arrived(target) > 0)
        began, before = time.monotonic(), _arrived(target)
        time.sleep(seconds)
        return (_arrived(target) - before) / (time.monotonic() - began)
    finally:
        over.set()
        flood.join()
        sink.close()


def _sink() -> socket.socket:
    """Nobody reads it: the kernel counts what arrives all the same, and nothing but forwarding is measured."""
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("", SINK_PORT))
    return sink


def _flood(namespace: str, address: str, over: Event) -> None:
    os.nice(POLITE)
    sender = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    segments = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", SMALL))]
    while not over.is_set():
        try:
            sender.sendmsg([bytes(SMALL * AT_ONCE)], segments, 0, (address, SINK_PORT))
        except OSError:  # no room
            continue


def _arrived(host: Host) -> int:
    names, values = (
        line.split()
        for line in inside(host.pod.namespace, lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines()
        if line.startswith("Udp:")
    )
    counted = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return counted["InDatagrams"] + counted["RcvbufErrors"]


def _wait(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often each is measured")
    parser.add_argument("--mode", default="userspace", help="kernel: FOU beside Go's proxy, where there is FOU")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each time")
    options = parser.parse_args()
    if not shutil.which("iperf3"):
        print("forwarder: iperf3 is missing: apt-get install iperf3", file=sys.stderr)
        return 1
    if "FLANNELD_GO" not in os.environ:
        print("forwarder: FLANNELD_GO does not name a Go flanneld v0.28.9", file=sys.stderr)
        return 1
    measures: list[tuple[str, str, Callable[[Host, Host, float], float]]] = [
        ("TCP", "Gbit/s", throughput),
        (f"UDP of {SMALL} bytes", "packets/s", packets_per_second),
    ]
    with ExitStack() as stack:
        go = Path(stack.enter_context(TemporaryDirectory())) / "flanneld"
        go.symlink_to(Path(os.environ["FLANNELD_GO"]).resolve(strict=True))
        our_lab, their_lab = stack.enter_context(Lab()), stack.enter_context(Lab())
        ours = our_lab.hosts(2, backend="udp", options={"Mode": options.mode})
        theirs = their_lab.hosts(2, backend="udp", store="etcd", started=False)
        for host in theirs:
            host.runs(go)
            host.start()
        their_lab.wait_until_ready(theirs)
        for lab, hosts in ((our_lab, ours), (their_lab, theirs)):
            lab.eventually(lambda hosts=hosts: hosts[0].pings(hosts[1]))
        for name, unit, measure in measures:
            ratios = []
            for _ in range(options.pairs):
                mine, other = measure(*ours, options.seconds), measure(*theirs, options.seconds)
                ratios.append(mine / other)
                print(
                    f"{name:16} {options.mode} {mine:10.3f}  Go {other:10.3f} {unit:10} {ratios[-1]:6.2f} times",
                    flush=True,
                )
            print(
                f"{name:16} median of {len(ratios)} pairs: {statistics.median(ratios):.2f} times Go's proxy", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
