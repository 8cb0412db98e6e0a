"""Asking this host's flanneld why there is no subnet.env yet."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from flannel_core.printable import printable

SOCKET_NAME = "flanneld.sock"
ANSWER_SECONDS = 2.0
LONGEST_WORDS = 300
"""Characters of what the agent says: they end up in an event of the pod."""


def what_it_waits_for(subnet_file: Path) -> str:
    """A sentence on the agent of that file, for whoever waits for a container to start. Never raises."""
    path = subnet_file.parent / SOCKET_NAME
    try:
        status = json.loads(_get(path, "/status"))
        if waiting := status.get("waiting_for"):
            return f"flanneld on this node waits for {printable(waiting, LONGEST_WORDS)}"
        if problems := status.get("problems"):
            return f"flanneld on this node says: {printable(problems[0], LONGEST_WORDS)}"
        return "flanneld on this node is about to write it"
    except (FileNotFoundError, ConnectionRefusedError):
        return f"No flanneld answers at {path}. Check the flannel pod log for this node"
    except (OSError, ValueError, AttributeError, TypeError, LookupError) as error:
        return f"flanneld on this node cannot be asked ({path}: {error}). Check the flannel pod log for this node"


def _get(path: Path, target: str) -> bytes:
    """The body of the answer. Raises OSError, and ValueError for anything but 200."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(f"it answers {printable(head.partition(bytes((13, 10)))[0])}")
    return body
