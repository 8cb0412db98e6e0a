"""The lab's API server as a process, and everything that can be done to it."""

from __future__ import annotations

import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from flannel_core.lab.background_process import BackgroundProcess
from flannel_core.lab.network import LabError
from flannel_core.lab.patience import PATIENCE

from .access import FLANNEL
from .api import Asked
from .certificates import Certificate
from .endpoint import ApiServer
from .objects import Json
from .server import Settings

START_SECONDS = 20.0 * PATIENCE


class KubernetesServer(ApiServer):
    """A context manager; ``start`` and ``kill`` do it by hand. ``namespace`` None: this process's own."""

    def __init__(
        self,
        directory: Path,
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        certificate: Certificate | None = None,
        namespace: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(addresses, certificate.ca if certificate else None)
        self.directory = directory
        self.certificate = certificate
        log_file = directory / "kube-apiserver.log"
        self._process = BackgroundProcess("the lab's API server", log_file, namespace, environment)
        self._socket = directory / "kube-apiserver.sock"
        self._forgotten = 0

    def __enter__(self) -> KubernetesServer:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """With nothing stored. Raises LabError with what it says."""
        files = self.certificate
        settings = Settings(
            str(self._socket),
            self.admin_token,
            self._addresses,
            self.port,
            str(files.file) if files else "",
            str(files.key) if files else "",
            str(files.client_ca) if files and files.client_ca else "",
        )
        file = self.directory / "kube-apiserver.json"
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.encode(settings))
        self._socket.unlink(missing_ok=True)
        self._process.launch([sys.executable, "-m", "flannel_core.lab.kubernetes.server", str(file)])
        self._process.wait_until(self._listens, time.monotonic() + START_SECONDS)
        self.set_token(self.token)

    def kill(self) -> None:
        """SIGKILL, and wait. What was stored is gone."""
        if self._process.running:
            self._process.kill()

    def down(self) -> None:
        """Connections are refused, those that there are break; what is stored stays."""
        self._call("down")

    def up(self) -> None:
        """Listen again after ``down``, on the same port."""
        self._call("up")

    def put_nodes(self, nodes: Iterable[Json]) -> None:
        """Write nodes as they are given, even such as a server would not take."""
        self._call("put", resource="nodes", objects=list(nodes))

    def put(self, resource: str, value: Json, namespace: str = "") -> None:
        """Write one object of any resource ("pods", "namespaces", "events") in the same way."""
        self._call("put", resource=resource, objects=[value], namespace=namespace)

    def node(self, name: str) -> Json:
        """Raises LabError if there is none."""
        found = self._call("get", resource="nodes", name=name)
        if found is None:
            raise LabError(f"the lab's API server has no node {name!r}")
        return dict(found)

    def objects(self, resource: str) -> list[Json]:
        """All objects of a resource, by name."""
        return list(self._call("all", resource=resource))

    def nodes(self) -> list[Json]:
        return self.objects("nodes")

    def delete_node(self, name: str) -> None:
        self._call("delete", resource="nodes", name=name)

    def compact(self) -> None:
        self._call("compact")

    def cut_watches(self) -> int:
        """Break the connections of all watches. Returns how many there were."""
        return int(self._call("cut_watches"))

    def faults(self, **changes: Any) -> None:
        """Change fields of ``api.Faults``; the others stay."""
        self._call("faults", changes=changes)

    def rotate_token(self, user: str = FLANNEL) -> str:
        """Give a user a new token; the old one is refused from now on. Returns it."""
        token = secrets.token_hex(16)
        self.set_token(token, user)
        return token

    def set_token(self, token: str, user: str = FLANNEL) -> None:
        self._call("set_token", user=user, token=token)
        if user == FLANNEL:
            self.token = token

    def allow(self, verb: str, resource: str, user: str = FLANNEL) -> None:
        """``resource`` with its subresource ("nodes/status")."""
        self._call("allow", user=user, verb=verb, resource=resource)

    def deny(self, verb: str, resource: str, user: str = FLANNEL) -> None:
        self._call("deny", user=user, verb=verb, resource=resource)

    def requests(self) -> list[Asked]:
        """Every request that was answered since ``forget_requests``; a watch counts once it has begun."""
        return msgspec.convert(self._call("log", since=self._forgotten), list[Asked])

    def forget_requests(self) -> None:
        self._forgotten += len(self.requests())

    def counts(self) -> Counter[str]:
        """How many requests of each verb and resource there were: ``counts()["watch nodes"]``."""
        return Counter(f"{asked.verb} {asked.resource}" for asked in self.requests())

    def _listens(self) -> bool:
        """It tells at which port."""
        try:
            self.port = int(self._call("port"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _call(self, call: str, /, **arguments: Any) -> Any:
        def exchange() -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._socket))
                connection.sendall(msgspec.json.encode([call, arguments]))
                connection.shutdown(socket.SHUT_WR)
                answer = bytearray()
                while data := connection.recv(1 << 16):
                    answer += data
                return bytes(answer)

        answer = msgspec.json.decode(exchange())
        if "error" in answer:
            raise LabError(f"the lab's API server cannot {call}: {answer['error']}")
        return answer["result"]
