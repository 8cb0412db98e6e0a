"""Running iptables, nft and their like: no shell, bounded in time, with errors that name the cure."""

from __future__ import annotations

import os
import shutil

from .. import process

TIMEOUT_SECONDS = 5.0
"""Longer than any of them takes, the wait for the xtables lock included: a pass that waits repairs nothing else."""
PACKAGES = {"nft": "nftables"}
"""Debian's and most others' names; iptables, ip6tables and their variants all come in ``iptables``."""


class ProgramFailed(Exception):
    """``str(error)`` says which program, and why. ``exit_code`` None: it did not run, or not to its end."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def find(program: str) -> str | None:
    """Its path, also where PATH leaves out the places for administrators."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))


async def run(program: str, *arguments: str, input: str = "") -> str:
    """What it prints. Raises ProgramFailed if it is not there, fails, or takes longer than TIMEOUT_SECONDS."""
    path = find(program)
    if path is None:
        package = PACKAGES.get(program, "iptables")
        raise ProgramFailed(f"{program} is not installed: install the package {package} on the host (or in the image)")
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        ended = await process.run(
            path, *arguments, seconds=TIMEOUT_SECONDS, input=input.encode(), environment=environment
        )
    except TimeoutError:
        raise ProgramFailed(f"{program} did not end within {TIMEOUT_SECONDS:.0f} s") from None
    except OSError as error:
        raise ProgramFailed(f"{path} cannot be run: {error.strerror}") from error
    if ended.exit_code:
        raise ProgramFailed(f"{program}: {_first_line(ended.errors) or 'failed'}", ended.exit_code)
    return ended.output.decode(errors="replace")


def _first_line(errors: bytes) -> str:
    """Warnings of old xtables versions begin with a #."""
    lines = (line.strip() for line in errors.decode(errors="replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")
