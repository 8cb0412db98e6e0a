"""What a lab needs of this machine, looked up before anything is made."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from flannel_core.plugins import PluginBroken, PluginMissing, load_backend, load_store

from .clouds import cloud_lacks
from .network import in_a_throw_away_namespace
from .programs import FLANNELD

PROBES = {
    "veth": "link add probe type veth",
    "bridge": "link add probe type bridge",
    "vxlan": "link add probe type vxlan id 1 dstport 8472",
    "ipip": "link add probe type ipip local 192.0.2.1",  # without an address it would be tunl0, which is there
}
"""How ``ip`` makes a device of a kind; a kind that is not here takes no options."""


@functools.cache
def lacking(backend: str, store: str, *, ipv6: bool) -> tuple[str, ...]:
    """Everything that keeps a lab of this kind from working here, each with its cure; empty: nothing does."""
    problems: list[str] = []
    devices: tuple[str, ...] = ()
    try:
        devices = load_backend(backend).kernel_modules
    except (PluginMissing, PluginBroken) as error:
        problems.append(str(error))
    try:
        load_store(store)
    except (PluginMissing, PluginBroken) as error:
        problems.append(str(error))
    if not FLANNELD.exists():
        problems.append(f"{FLANNELD} is missing: install flannel-core into the environment of {sys.executable}")
    if ipv6 and not Path("/proc/sys/net/ipv6").exists():
        problems.append("this kernel has no IPv6: start it without ipv6.disable=1, or leave the family out")
    return (*problems, *cloud_lacks(backend), *machine_lacks(devices))


@functools.cache
def machine_lacks(devices: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What keeps any lab from working here; ``devices`` are the kinds that it needs besides its own."""
    if not shutil.which("ip"):
        return ("the command `ip` is missing: apt install iproute2",)
    if os.geteuid() != 0:
        return ("a lab makes network namespaces, which takes root: run it with sudo",)
    return tuple(_kernel_lacks(("veth", "bridge", *devices)))


def _kernel_lacks(kinds: tuple[str, ...]) -> list[str]:
    try:
        refusals = in_a_throw_away_namespace(lambda: {kind: _refusal(kind) for kind in kinds})
    except OSError as error:
        return [
            f"network namespaces may not be made here ({error.strerror}): "
            "in a container, run it with --privileged or --cap-add SYS_ADMIN"
        ]
    return [
        f"the kernel makes no {kind} devices ({said}): modprobe {kind}, or install the kernel's extra modules"
        for kind, said in refusals.items()
        if said
    ]


def _refusal(kind: str) -> str:
    """What ``ip`` said against a device of this kind in the namespace of the calling thread, "" if nothing."""
    command = ["ip", *PROBES.get(kind, f"link add probe type {kind}").split()]
    done = subprocess.run(command, capture_output=True, text=True)
    subprocess.run(["ip", "link", "del", "probe"], capture_output=True)
    return " ".join(done.stderr.split())
