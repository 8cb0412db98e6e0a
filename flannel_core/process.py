"""Running another program: no shell, bounded in time, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

import msgspec


class Ended(msgspec.Struct, frozen=True):
    """How a program ended: ``exit_code`` (minus the signal's number where one ended it) and what it wrote."""

    exit_code: int
    output: bytes
    errors: bytes


async def run(
    *argv: str, seconds: float, input: bytes = b"", environment: Mapping[str, str] | None = None, merged: bool = False
) -> Ended:
    """Run ``argv`` to its end. ``environment`` None: ours; ``merged``: what it writes to stderr is part of ``output``.

    Raises OSError if it cannot be run (ValueError for a word with a NUL), TimeoutError if it takes longer than
    ``seconds``: it is killed then, with every process that it has started and that stayed in its group. The same where
    the caller is cancelled.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if merged else asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate(input)
    finally:
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output, errors or b"")
