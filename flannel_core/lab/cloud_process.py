"""A cloud of the lab as a process of its own, so that it outlives a lab that is kept: API, metadata service, router.

The process is a module with a ``main`` that ends in ``serve``; ``CloudProcess.call`` is how the lab and its tests tell
it anything that the cloud's own API does not.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .background_process import BackgroundProcess
from .network import LabError
from .patience import PATIENCE

START_SECONDS = 30.0 * PATIENCE

Calls = Mapping[str, Callable[..., Any]]


class CloudProcess(BackgroundProcess):
    """``module`` runs in ``namespace`` with the path of its socket as its argument, its files in ``directory``. What it
    holds ends with it, but for the routes of its router."""

    def __init__(self, module: str, directory: Path, namespace: str, environment: Mapping[str, str]) -> None:
        super().__init__("the lab's cloud", directory / "cloud.log", namespace, environment)
        self._module = module
        self._socket = directory / "cloud.sock"

    def start(self) -> None:
        """Raises LabError with what it says."""
        self.launch([sys.executable, "-m", self._module, str(self._socket)])
        self.wait_until(self._answers, time.monotonic() + START_SECONDS)

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
