"""Running the plugin that does the work."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flannel_core.printable import printable

from .protocol import CURRENT, INTERNAL, CniError, Json, decode

LONGEST_SECONDS = 100.0
"""How long a delegate may take: longer than the lease of an address from a slow DHCP server, and shorter than the two
minutes that kubelet waits for a container's network."""
SIGKILL = 9
"""asm-generic/signal.h. The module signal makes three enumerations of such numbers, which takes a millisecond."""
BUSY_TRIES = 5
"""As often, a second apart, a program is tried that somebody is writing to: an installer that copies in place."""
LONGEST_OUTPUT = 1 << 20
"""Bytes of a delegate's answer, and of what it says beside."""


def find(plugin: str, paths: Sequence[str]) -> Path:
    """The plugin's program in the first of ``paths`` (CNI_PATH) that has it. Raises CniError."""
    if not plugin:
        raise CniError(INTERNAL, "no plugin name provided")
    if "/" in plugin or "\0" in plugin:
        raise CniError(INTERNAL, f"invalid plugin name: {printable(plugin)}")
    for directory in paths:
        program = Path(directory, plugin)
        if program.is_file():
            return program
    raise CniError(INTERNAL, f'failed to find plugin "{printable(plugin)}" in path [{" ".join(paths)}]')


def call(program: Path, config: bytes, environment: Mapping[str, str], seconds: float | None = None) -> bytes:
    """Run a delegate and return its answer. None: it may take LONGEST_SECONDS. Raises CniError, its own where it gave
    one."""
    code, out, said = _run(program, config, environment, LONGEST_SECONDS if seconds is None else seconds)
    if code == 0:
        say(said)
        return out
    if not out:
        words = (
            f"netplugin failed: {printable(said, 1000)}"
            if said
            else f"netplugin failed with no error message: {_end(code)}"
        )
        raise CniError(INTERNAL, words)
    try:
        answer = decode(out)
        raise CniError(int(answer.get("code") or INTERNAL), str(answer.get("msg", "")), str(answer.get("details", "")))
    except (ValueError, TypeError) as error:
        words = f"netplugin failed but error parsing its diagnostic message '{printable(out, 1000)}': {error}"
        raise CniError(INTERNAL, words) from None


def say(text: bytes) -> None:
    """To standard error, which a runtime may keep or throw away: nothing fails for want of it."""
    try:
        os.write(2, text)
    except OSError:
        pass


def versions(program: Path, environment: Mapping[str, str]) -> list[str]:
    """Of the specification, that a delegate supports. Raises CniError."""
    answer = call(program, b'{"cniVersion":"%s"}' % CURRENT.encode(), {**environment, "CNI_COMMAND": "VERSION"})
    try:
        return [str(version) for version in decode(answer)["supportedVersions"]]
    except (ValueError, KeyError, TypeError):
        return []


def result(program: Path, answer: bytes, version: str) -> Json:
    """What a delegate answered to ADD; it is of the configuration's ``version`` if it does not say. Raises CniError."""
    try:
        found = decode(answer)
    except ValueError as error:
        raise CniError(
            INTERNAL, f"failed to delegate add: {program} succeeded, but its result cannot be read: {error}"
        ) from None
    return found if found.get("cniVersion") else {**found, "cniVersion": version}


def _run(program: Path, config: bytes, environment: Mapping[str, str], seconds: float) -> tuple[int, bytes, bytes]:
    """The exit code (that of os.waitstatus_to_exitcode), standard output and standard error.

    All three are files in memory: nothing has to be read while the program runs, and a process that outlives it holds
    up nobody. It has a process group of its own, so that its children end with it.
    """
    with _memory(config) as stdin, _memory() as stdout, _memory() as stderr:
        child = _spawn(program, environment, (stdin, stdout, stderr))
        late = not _ends(child, seconds)
        if late:
            os.killpg(child, SIGKILL)
        _, status = os.waitpid(child, 0)
        if late:
            raise CniError(INTERNAL, f"{program.name} did not end within {seconds:g} s, and was killed")
        return os.waitstatus_to_exitcode(status), _content(stdout), _content(stderr)


def _ends(child: int, seconds: float) -> bool:
    """Whether the process ends within that time. Linux before 5.3 cannot be asked, and nothing is bounded there."""
    try:
        descriptor = os.pidfd_open(child)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _spawn(program: Path, environment: Mapping[str, str], files: Sequence[int]) -> int:
    actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
    tries = BUSY_TRIES
    while True:
        try:
            return os.posix_spawn(program, [str(program)], environment, file_actions=actions, setpgroup=0)
        except OSError as error:
            tries -= 1
            if error.errno != errno.ETXTBSY or tries == 0:
                raise CniError(INTERNAL, f"{program} cannot be started: {error.strerror}") from None
        time.sleep(1)


@contextmanager
def _memory(content: bytes = b"") -> Iterator[int]:
    descriptor = os.memfd_create("cni")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, LONGEST_OUTPUT, 0)


def _end(code: int) -> str:
    return f"exit status {code}" if code > 0 else f"signal: {-code}"
