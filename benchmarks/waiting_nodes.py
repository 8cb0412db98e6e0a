"""Nodes of a Kubernetes cluster that are not there, for an agent to find: what ``converge.py --store kubernetes`` has
wait in a lab's API server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lab.kubernetes.lab_store import KUBELETS, KubernetesLabStore
from flannel_core.lab.kubernetes.objects import Json

NODE_BYTES = 5_000
"""Of JSON: what a node of a real cluster has, with its conditions, images and labels."""
FIRST_WAITING = 100
"""The number of the first: the subnets before it are those of the lab's own hosts."""
PREFIX = "flannel.alpha.coreos.com/"


class Cluster:
    """The API server of a lab, filled and counted."""

    def __init__(self, store: KubernetesLabStore) -> None:
        self._server = store.server

    def fill(self, leases: Iterable[tuple[str, str]]) -> None:
        """A node for each of these leases, with its agent's annotations."""
        self._server.put_nodes(waiting_nodes(leases))

    def requests(self) -> int:
        """How many there were so far, whoever asked; 0 where a real server does not say."""
        return len(self._server.requests()) if isinstance(self._server, KubernetesServer) else 0


def waiting_nodes(leases: Iterable[tuple[str, str]]) -> Iterator[Json]:
    """``leases`` as etcd has them: key and value."""
    for number, (key, value) in enumerate(leases):
        lease = json.loads(value)
        annotations = {
            "kube-subnet-manager": "true",
            "backend-type": lease["BackendType"],
            "backend-data": json.dumps(lease.get("BackendData"), separators=(",", ":")),
            "public-ip": lease["PublicIP"],
        }
        yield node(
            f"node{number:05}",
            [key.replace("-", "/")],
            annotations=KUBELETS | {PREFIX + name: text for name, text in annotations.items()},
            size=NODE_BYTES,
        )
