"""A cloud of the lab as a process of its own, so that it outlives a lab that is kept: API, metadata service, router.

The process is a module with a ``main`` that ends in ``serve``; ``CloudProcess.call`` is how the lab and its tests tell
it anything that the cloud's own API does not.
"""

from __future__ import annotations

import signal
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .network import LabError
from .patience import PATIENCE

START_SECONDS = 30.0 * PATIENCE
POLL_SECONDS = 0.02

Calls = Mapping[str, Callable[..., Any]]


class CloudProcess:
    """``module`` runs in ``namespace`` with the path of its socket as its argument, its files in ``directory``."""

    def __init__(self, module: str, directory: Path, namespace: str, environment: Mapping[str, str]) -> None:
        self.log_file = directory / "cloud.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._module = module
        self._socket = directory / "cloud.sock"
        self._namespace = namespace
        self._environment = environment

    def start(self) -> None:
        """Raises LabError with what it says."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, sys.executable, "-m", self._module, str(self._socket)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the lab's cloud does not get ready:\n{self.log_file.read_text(errors='replace')}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL, and wait. All that the cloud held is gone, but for the routes of its router."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Call one of the functions that the process serves. Raises LabError with what it raised."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(msgspec.json.encode([name, arguments]) + b"\n")
            answer = msgspec.json.decode(connection.makefile("rb").readline())
        if "error" in answer:
            raise LabError(f"the lab's cloud cannot {name}: {answer['error']}")
        return answer["result"]

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise LabError("the lab's cloud was never started")
        self.process.send_signal(number)


def serve(path: Path, calls: Calls) -> None:
    """The process's side: answer until it ends. Each call has a thread of its own; arguments and results are JSON."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if line := self.rfile.readline():
                self.wfile.write(msgspec.json.encode(_answer(line, calls)) + b"\n")

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    path.unlink(missing_ok=True)
    with Server(str(path), Handler) as server:
        server.serve_forever()


def _answer(line: bytes, calls: Calls) -> dict[str, Any]:
    name, arguments = msgspec.json.decode(line)
    try:
        return {"result": calls[name](**arguments)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
