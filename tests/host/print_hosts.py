"""Run in a namespace by test_host_discovery.py: what this host is and, with ``follow``, each change, a JSON line each.

Arguments: ``discover`` or ``follow``, the families (4, 6, 46), HostOptions as JSON, our own devices. An error is a line
on stderr and its exit code, as flanneld does it; log lines go there too.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from flannel_core import klog
from flannel_core.errors import FlannelError
from flannel_core.host import Host
from flannel_core.host_discovery import HostOptions, discover, follow


def show(host: Host) -> None:
    print(msgspec.json.encode(host, enc_hook=str).decode(), flush=True)


async def show_changes(options: HostOptions, host: Host, ipv4: bool, ipv6: bool, own: list[str]) -> None:
    async for changed in follow(options, host, ipv4=ipv4, ipv6=ipv6, own_devices=own):
        show(changed)


def main(mode: str, families: str, options_json: str, *own: str) -> None:
    klog.configure()
    options = msgspec.json.decode(options_json, type=HostOptions)
    ipv4, ipv6 = "4" in families, "6" in families
    try:
        host = discover(options, ipv4=ipv4, ipv6=ipv6, own_devices=own)
    except FlannelError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    show(host)
    if mode == "follow":
        asyncio.run(show_changes(options, host, ipv4, ipv6, list(own)))


main(*sys.argv[1:])
