"""Where an API server is reached and as whom: what the lab's own and a real one have in common."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from .objects import Json


class ApiServer(ABC):
    """``token`` is that of the service account of kube-flannel.yml, ``admin_token`` of one who may do everything.
    ``ca`` is who signed the server's certificate, None where it speaks plain HTTP."""

    def __init__(self, addresses: Sequence[str], ca: Path | None) -> None:
        self.admin_token = secrets.token_hex(16)
        self.token = secrets.token_hex(16)
        self.ca = ca
        self.port = 0
        self._addresses = tuple(addresses)

    @property
    def url(self) -> str:
        """That of the first address."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """One for each address."""
        scheme = "https" if self.ca else "http"
        return [f"{scheme}://{f'[{a}]' if ':' in a else a}:{self.port}" for a in self._addresses]

    def write_kubeconfig(self, file: Path, *, url: str = "", token: str | None = None, **user: str) -> Path:
        """A kubeconfig as the service account, with its present token; with another ``token``; or with other fields of
        a kubeconfig's user (``tokenFile``; ``client_certificate`` for ``client-certificate``). Returns ``file``."""
        fields = {name.replace("_", "-"): value for name, value in user.items()} or {"token": token or self.token}
        cluster = {"server": url or self.url} | ({"certificate-authority": str(self.ca)} if self.ca else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "flannel", "user": fields}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "flannel"}}],
            "current-context": "lab",
        }
        file.write_text(json.dumps(config, indent=1))
        return file

    @abstractmethod
    def start(self) -> None:
        """Raises LabError with what it says."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, and wait."""

    @abstractmethod
    def put_nodes(self, nodes: Iterable[Json]) -> None:
        """Write nodes that are not there yet."""

    @abstractmethod
    def node(self, name: str) -> Json:
        """Raises LabError if there is none."""

    @abstractmethod
    def nodes(self) -> list[Json]:
        """All of them, by name."""

    @abstractmethod
    def delete_node(self, name: str) -> None:
        """Raises LabError if there is none."""

    @abstractmethod
    def compact(self) -> None:
        """Forget all history: a list or watch that comes with an older version is told that it is gone. Connections may
        break."""
