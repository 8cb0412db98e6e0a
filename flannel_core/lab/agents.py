"""One flanneld of a lab: started, stopped, killed, asked."""

from __future__ import annotations

import http.client
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.flannelctl.agent_socket import ask
from flannel_core.status import PlanLine, Status

from .background_process import LOG_END, BackgroundProcess
from .network import LabError, inside
from .patience import PATIENCE
from .programs import FLANNELD

STOP_SECONDS = 5.0 * PATIENCE
ANSWER_SECONDS = 5.0 * PATIENCE
OURS_ALONE = ("store", "set-sysctls")
"""Of the options that the lab gives to flanneld, those that another one does not know."""

Options = Mapping[str, str | bool | None]
"""Options of flanneld without their dashes; True for one that stands alone, None or False to leave it out."""


@dataclass(frozen=True)
class Ended:
    """How an attempt to run flanneld ended."""

    exit_code: int
    output: str


class Agent(BackgroundProcess):
    """A flanneld inside ``namespace``, with a state directory of its own.

    ``program`` may be set to another one that takes Go flannel's options, from the next start on. Of it only what both
    show is known: subnet.env, the health port, the log.
    """

    def __init__(
        self, name: str, namespace: str, directory: Path, options: Options, environment: Mapping[str, str]
    ) -> None:
        super().__init__(name, directory.with_name(f"{directory.name}.log"), namespace, environment)
        self.namespace = namespace
        self.directory = directory
        self.options: Options = {"subnet-file": str(self.subnet_file), **options}
        self.program = FLANNELD

    @property
    def is_ours(self) -> bool:
        """Whether ``program`` is the flanneld of this environment."""
        return self.program == FLANNELD

    @property
    def subnet_file(self) -> Path:
        return self.directory / "subnet.env"

    def command(self, **changes: str | bool | None) -> list[str]:
        """The whole command line, ``changes`` (underscores for dashes) on top of the agent's own options."""
        options = {**self.options, **{name.replace("_", "-"): value for name, value in changes.items()}}
        words = [str(self.program)]
        for name, value in options.items():
            if name in OURS_ALONE and not self.is_ours:
                continue
            if value is True:
                words.append(f"--{name}")
            elif value:
                words += [f"--{name}", value]
        return words

    def start(self, **changes: str | bool | None) -> None:
        """Start it in the background, with its log in ``log_file``. Raises LabError if it already runs."""
        if self.running:
            raise LabError(f"{self.name}: its agent already runs")
        self.launch(self.command(**changes))

    def attempt(self, prefix: Sequence[str] = (), **changes: str | bool | None) -> Ended:
        """Run it beside or in place of the agent until it ends by itself. ``prefix`` is a command that runs it (as
        another user). Raises LabError if it does not end."""
        command = ["ip", "netns", "exec", self.namespace, *prefix, *self.command(**changes)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment
        )
        try:
            output, _ = process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise LabError(f"`{shlex.join(command)}` goes on running:\n{output.decode(errors='replace')}") from None
        return Ended(process.returncode, output.decode(errors="replace"))

    def stop(self) -> int:
        """SIGTERM, and wait. Returns the exit code; raises LabError if it takes longer than STOP_SECONDS."""
        try:
            return self._signalled(signal.SIGTERM).wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: its agent does not end on SIGTERM\n{self.log_excerpt()}") from None

    def restart(self, **changes: str | bool | None) -> None:
        """SIGTERM, then start again."""
        self.stop()
        self.start(**changes)

    def log(self) -> str:
        """What all runs of this agent have written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_excerpt(self) -> str:
        return "\n".join(f"    {line}" for line in self.log().splitlines()[-LOG_END:])

    def status(self) -> Status:
        """Raises FlannelError while the agent does not answer."""
        return msgspec.json.decode(ask(self.subnet_file, "/status"), type=Status)

    def plan(self) -> list[PlanLine]:
        """What the agent would change now. Raises FlannelError while it does not answer."""
        return msgspec.json.decode(ask(self.subnet_file, "/plan"), type=list[PlanLine])

    def ready(self) -> bool:
        """Whether the agent answers and says that it is ready."""
        try:
            if not self.is_ours:
                return self.running and self.http("/readyz")[0] == 200
            return self.running and self.status().ready
        except (FlannelError, OSError, http.client.HTTPException):
            return False

    def http(self, path: str) -> tuple[int, str]:
        """Status code and text of a path on its health port. Raises OSError."""
        address, port = self.options.get("healthz-ip"), self.options.get("healthz-port")

        def ask() -> tuple[int, str]:
            connection = http.client.HTTPConnection(str(address), int(str(port)), timeout=ANSWER_SECONDS)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

        return inside(self.namespace, ask)

    def explain(self) -> str:
        """Its state in a few lines, for a person: running or how it ended, what it waits for, its log's end."""
        if self.process is None:
            return f"{self.name}: its agent was never started"
        if not self.running:
            return f"{self.name}: its agent ended with {self.process.returncode}\n{self.log_excerpt()}"
        if not self.is_ours:
            return f"{self.name}: {self.program} runs, {'ready' if self.ready() else 'not ready'}\n{self.log_excerpt()}"
        try:
            status = self.status()
        except FlannelError as error:
            return f"{self.name}: its agent runs but does not answer ({error})\n{self.log_excerpt()}"
        if status.healthy:
            return f"{self.name}: ready, no problems"
        lines = [f"{self.name}: {'ready' if status.ready else 'not ready'}"]
        if status.waiting_for:
            lines[0] += f", waiting for {status.waiting_for}"
        lines += [f"    {problem}" for problem in status.problems]
        return "\n".join([*lines, self.log_excerpt()])
