"""Values under /proc/sys as a target. Nothing notifies of their changes, so they are read every two seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from .objects import Object, Sysctl
from .target import Actual, Failure, Put, Scope, Target


class _File(msgspec.Struct, frozen=True):
    """A file as it was found; ``value`` None: it is missing or cannot be read."""

    value: str | None
    writable: bool


class _GivenUp(msgspec.Struct, frozen=True):
    """An optional value that could not be written, and the files that it depends on as they were then."""

    wanted: Sysctl
    files: list[_File]
    reason: str


class SysctlTarget(Target):
    """Reads and writes the sysctls that are wanted. None is ever removed: what was before is not known.

    An optional one that cannot be written (missing, read-only /proc as in many containers) is no failure: it is read
    as if it had the wanted value, with the facts ``value`` and ``unset`` (the reason) for the status, so that nobody
    tries again until the file itself looks different.
    """

    name: ClassVar[str] = "sysctl"
    stages: ClassVar[Mapping[type[Object], int]] = {Sysctl: 10}
    poll_seconds: ClassVar[float | None] = 2.0

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root
        self._given_up: dict[str, _GivenUp] = {}

    async def read(self, scope: Scope) -> list[Actual]:
        """The values of the identities in ``scope.wanted``; missing ones are left out. With ``scope.only`` those that
        have one of these devices in their path."""
        self.scope = scope
        wanted = sorted(str(identity[1]) for identity in scope.wanted if identity[0] == Sysctl.kind)
        if scope.only is not None:
            wanted = [name for name in wanted if not scope.only.isdisjoint(name.split("/"))]
        found = []
        for name in wanted:
            file = self._look(name)
            given_up = self._given_up.get(name)
            if given_up is not None and given_up.files == self._look_all(given_up.wanted):
                found.append(Actual(given_up.wanted, {"value": file.value, "unset": given_up.reason}))
                continue
            self._given_up.pop(name, None)
            if file.value is not None:
                found.append(Actual(Sysctl(name, file.value)))
        return found

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> list[Failure]:
        """Those that have to stand before others come first."""
        failures = []
        for wanted in sorted(
            (put.object for put in puts), key=lambda item: isinstance(item, Sysctl) and item.after != ()
        ):
            if not isinstance(wanted, Sysctl):
                failures.append(Failure(wanted, f"the sysctl target has no {wanted.kind}"))
                continue
            reason = self._set(wanted)
            if reason is None:
                self._given_up.pop(wanted.name, None)
            elif wanted.optional:
                self._given_up[wanted.name] = _GivenUp(wanted, self._look_all(wanted), reason)
            else:
                failures.append(Failure(wanted, reason))
        return failures

    def _look_all(self, wanted: Sysctl) -> list[_File]:
        return [self._look(wanted.name), *(self._look(name) for name, _ in wanted.after)]

    def _look(self, name: str) -> _File:
        path = self._root / name
        try:
            value = " ".join(path.read_text().split())
        except (OSError, ValueError):
            return _File(None, False)
        return _File(value, os.access(path, os.W_OK))

    def _set(self, wanted: Sysctl) -> str | None:
        """Why it could not be written, None if it was."""
        path = self._root / wanted.name
        for name, value in wanted.after:
            if self._look(name).value not in (value, None):  # what is missing can do no harm
                return f"{path} is not set before {self._root / name} is {value}"
        by_hand = f"`sysctl -w {wanted.dotted}={wanted.value}`"
        try:
            with path.open("r+") as file:  # never creates one
                file.write(wanted.value)
        except FileNotFoundError:
            if wanted.device is not None:
                return f"{path} does not exist: the device {wanted.device} is gone, or the kernel lacks this setting"
            return f"{path} does not exist: a kernel module that brings it is not loaded"
        except OSError as error:
            return f"{path} cannot be set to {wanted.value} ({error.strerror}): set it on the host, {by_hand}"
        return None
