"""Asking the running agent: HTTP over the Unix socket beside subnet.env."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import FlannelError

SOCKET_NAME = "flanneld.sock"
ANSWER_SECONDS = 10.0

SubnetFile = Annotated[Path, Parameter(env_var="FLANNELD_SUBNET_FILE")]
"""--subnet-file of the agent that is meant."""
DEFAULT_SUBNET_FILE = Path("/run/flannel/subnet.env")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class NoAgent(FlannelError):
    """Nobody listens at the socket."""


def ask(subnet_file: Path, target: str, body: bytes | None = None) -> bytes:
    """The body of ``GET target`` from the agent of that subnet file, or, with a ``body``, of ``POST target``. Raises
    NoAgent, and FlannelError with the cure."""
    with _answer(subnet_file, target, body) as answer:
        return answer.read()


def follow_lines(subnet_file: Path, target: str) -> Iterator[bytes]:
    """The lines of an answer that goes on as long as the agent runs. Raises FlannelError when it ends, and as
    :func:`ask` does."""
    with _answer(subnet_file, target, patient=True) as answer:
        while line := answer.readline():
            yield line
        raise FlannelError(f"the agent behind {subnet_file.parent / SOCKET_NAME} has ended")


@contextmanager
def _answer(
    subnet_file: Path, target: str, body: bytes | None = None, *, patient: bool = False
) -> Iterator[http.client.HTTPResponse]:
    """``patient``: however long it takes."""
    path = subnet_file.parent / SOCKET_NAME
    connection = _UnixConnection(path)
    try:
        connection.request("GET" if body is None else "POST", target, body)
        if patient:
            connection.sock.settimeout(None)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            said = answer.read().decode(errors="replace").strip()
            if answer.status == http.client.UNPROCESSABLE_ENTITY:  # the agent's own words: why it cannot be done
                raise FlannelError(said)
            raise FlannelError(f"the agent behind {path} answers {target} with {answer.status}: {said}")
        yield answer
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoAgent(
            f"no agent runs behind {path}; start it with `flanneld --subnet-file {subnet_file}`, "
            "or name the --subnet-file of the one that does"
        ) from None
    except PermissionError:
        raise FlannelError(f"{path}: only root may ask the agent; try it with sudo") from None
    except TimeoutError:
        raise FlannelError(f"the agent behind {path} does not answer within {ANSWER_SECONDS:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise FlannelError(f"the agent behind {path} cannot be asked: {error or type(error).__name__}") from None
    finally:
        connection.close()
