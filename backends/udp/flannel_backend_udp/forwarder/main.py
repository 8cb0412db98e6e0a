"""The program ``flannel-udp-forwarder``: started by systemd, by a container, or by the agent."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from .serving import Forwarder

NOBODY = 65534
"""User and group that root becomes: the kernel's overflow id, which owns nothing."""
FIRST_PASSED = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def main() -> int:
    """The exit status: 0 if there was nothing left to forward, 1 with a sentence if it could not begin."""
    parser = argparse.ArgumentParser(
        prog="flannel-udp-forwarder",
        description="Moves packets between flannel's TUN device and UDP. What to forward it hears from flanneld.",
    )
    parser.add_argument("socket", nargs="?", type=Path, help="where to listen for flanneld; none: as systemd says")
    parser.add_argument("--detach", action="store_true", help="go on in the background once it listens")
    arguments = parser.parse_args()
    try:
        listening = _listen_at(arguments.socket) if arguments.socket else _listen_as_told()
        _become_nobody()
    except OSError as error:
        print(f"flannel-udp-forwarder: {arguments.socket or 'systemd'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if arguments.detach:
        _detach()
    Forwarder(listening).run()
    return 0


def _listen_at(path: Path) -> socket.socket:
    """A socket for this user alone, in place of one that nobody listens at any more. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OSError("another forwarder listens there")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(umask)
    listening.listen()
    return listening


def _listen_as_told() -> socket.socket:
    """The socket of the unit's .socket. Raises OSError."""
    if os.environ.get("LISTEN_FDS") != "1":
        raise OSError("it passed no socket (LISTEN_FDS): say where to listen")
    return socket.socket(fileno=FIRST_PASSED)


def _become_nobody() -> None:
    """Raises OSError where root may not (no CAP_SETUID)."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _detach() -> None:
    """Go on as a process of its own, in a group of its own, which nobody waits for or reads from."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(FIRST_PASSED):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    sys.exit(main())
