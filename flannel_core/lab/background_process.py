"""A program that runs in the background of the lab: started, waited for, frozen, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .network import LabError

POLL_SECONDS = 0.02
LOG_END = 12
"""Lines of the log that go into an error."""


class BackgroundProcess:
    """``name`` is what an error calls it. What it prints is appended to ``log_file``, run after run. ``namespace``
    and ``environment`` are this process's own where they are None."""

    def __init__(self, name: str, log_file: Path, namespace: str | None, environment: Mapping[str, str] | None) -> None:
        self.name = name
        self.log_file = log_file
        self._namespace = namespace
        self.environment: Mapping[str, str] = os.environ if environment is None else environment
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str]) -> None:
        """Start ``command``, and wait for nothing. Ctrl-C is not for it: the lab ends it."""
        inside = ["ip", "netns", "exec", self._namespace] if self._namespace else []
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*inside, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def wait_until(self, is_ready: Callable[[], bool], deadline: float) -> None:
        """Until ``is_ready``. Raises LabError with the log's end if the program ends, or at ``deadline`` (of
        time.monotonic)."""
        while not is_ready():
            if not self.running or time.monotonic() > deadline:
                log_end = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_END:])
                raise LabError(f"{self.name} does not get ready:\n{log_end}")
            time.sleep(POLL_SECONDS)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> int:
        """SIGKILL, and wait; one that is frozen ends too. Returns the exit code."""
        return self._signalled(signal.SIGKILL).wait()

    def freeze(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self._signalled(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signalled(signal.SIGCONT)

    def _signalled(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        """The process, sent ``number``. Raises LabError if it was never started."""
        if self.process is None:
            raise LabError(f"{self.name} was never started")
        self.process.send_signal(number)
        return self.process
