"""Run by test_lock.py, often in a namespace: take the lock and claims, say ``held``, keep them until stdin ends.

Arguments: the state directory, then the devices; one with ``!`` before it exists without being ours. What is refused is
a line on stdout instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flannel_core.errors import FlannelError
from flannel_core.lock import AgentLock


def main(directory: str, *devices: str) -> None:
    try:
        with AgentLock(Path(directory)) as lock:
            lock.refuse_go_flanneld(Path(directory) / "subnet.env")
            for device in devices:
                lock.claim_device(device.lstrip("!"), exists=device.startswith("!"), ours=False)
            print("held", flush=True)
            sys.stdin.read()
    except FlannelError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


main(*sys.argv[1:])
