"""One command, run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from flannel_core import process
from flannel_core.printable import printable

from .words import expanded, shown

log = logging.getLogger(__name__)

LOGGED_CHARACTERS = 1000


class CommandFailed(Exception):
    """``str(error)`` holds the command, how it ended and what it printed."""


async def run(words: Sequence[str], variables: Mapping[str, str], stdin: str, seconds: float) -> str:
    """Run ``words``, with ``variables`` beside the agent's own environment, and ``stdin`` and a line's end to read.

    Returns what it wrote to stdout and stderr, without the white space around it. Raises CommandFailed.
    """
    environment = {**os.environ, **variables}
    argv = expanded(words, environment)
    command = shown(words)
    if not argv[0]:
        raise CommandFailed(f"failed to run command: {command} Err: its first word is empty: is the variable set?")
    try:
        ended = await process.run(
            *argv, seconds=seconds, input=stdin.encode() + b"\n", environment=environment, merged=True
        )
    except TimeoutError:
        reason = f"it still ran after {seconds:g} s (Backend.CommandTimeout) and was killed"
        raise CommandFailed(f"failed to run command: {command} Err: {reason}") from None
    except (OSError, ValueError) as error:
        raise CommandFailed(f"failed to run command: {command} Err: {_why(error, argv[0])}") from None
    output = ended.output.decode(errors="replace").strip()
    said = printable(output, LOGGED_CHARACTERS)
    if ended.exit_code:
        how = f"exit status {ended.exit_code}" if ended.exit_code > 0 else f"signal {-ended.exit_code}"
        raise CommandFailed(f"failed to run command: {command} Err: {how} Output: {said}")
    log.info("Ran command: %s\n Output: %s", command, said)
    return output


def _why(error: Exception, program: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{printable(program)} is not installed or not in flanneld's PATH"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
