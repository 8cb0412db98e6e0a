"""The store ``kubernetes`` of a lab: an API server on the underlay, and a node for each host."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flannel_core.lab.network import UNDERLAY4, UNDERLAY6, LabError, inside
from flannel_core.lab.stores import LabStore
from flannel_core.lease import IPNetwork, Lease
from flannel_core.state_file import write_atomically
from flannel_core.store import SubnetStore

from .certificates import issue, new_authority
from .node import node
from .process import KubernetesServer
from .real import RealKubernetesServer

T = TypeVar("T")

POD_CIDR_LENGTHS = {4: 24, 6: 64}
"""What kube-controller-manager gives a node by default (--node-cidr-mask-size-ipv4, -ipv6)."""
KUBELETS = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
"""What a kubelet annotates its node with. Go flannel does not live without any annotation."""


class KubernetesLabStore(LabStore):
    """``server`` is the lab's own API server, or a real kube-apiserver where ``KUBE_APISERVER`` names one.

    Each host is a node with a podCIDR out of each of ``networks``, the pods' networks of the families that are on. The
    machines reach the server in the first of these families.
    """

    def __init__(
        self, directory: Path, namespace: str, environment: Mapping[str, str], networks: Sequence[str]
    ) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(text) for text in networks]
        self._namespace = namespace
        self._nodes = 0
        address = str(UNDERLAY4[1] if self._networks[0].version == 4 else UNDERLAY6[1])
        self.server: KubernetesServer | RealKubernetesServer
        if os.environ.get("KUBE_APISERVER"):
            self.server = RealKubernetesServer(directory, address=address, namespace=namespace, environment=environment)
        else:
            self.server = KubernetesServer(
                directory,
                addresses=(address,),
                certificate=issue(new_authority(), [address], directory),  # Go's client shows no token without TLS
                namespace=namespace,
                environment=environment,
            )
        self.server.start()
        self.net_conf = directory / "net-conf.json"
        self._token_file = directory / "token"
        self.write_token()
        self.kubeconfig = self.server.write_kubeconfig(directory / "kubeconfig", tokenFile=str(self._token_file))
        super().__init__("kubernetes", {"kubeconfig": str(self.kubeconfig)}, directory)

    @property
    def arguments(self) -> Mapping[str, str | bool]:
        """As Go flannel takes them too."""
        return {
            "kube-subnet-mgr": True,
            "kubeconfig-file": str(self.kubeconfig),
            "net-config-path": str(self.net_conf),
        }

    def write_token(self) -> None:
        """Where the agents read it, as the kubelet does when it has rotated it."""
        write_atomically(self._token_file, self.server.token.encode(), mode=0o600)

    def join(self, host: str) -> dict[str, str]:
        self._nodes += 1
        subnets = (network.subnets(new_prefix=POD_CIDR_LENGTHS[network.version]) for network in self._networks)
        pod_cidrs = [str(next(islice(found, self._nodes, None))) for found in subnets]
        self.server.put_nodes([node(host, pod_cidrs, annotations=KUBELETS)])
        return {"NODE_NAME": host}

    def set_config(self, text: bytes) -> None:
        write_atomically(self.net_conf, text)

    def release(self, subnet: IPNetwork) -> None:
        """The node is deleted."""
        for name, pod_cidrs in self._pod_cidrs().items():
            if str(subnet) in pod_cidrs:
                self.server.delete_node(name)
                return
        raise LabError(f"no node has the podCIDR {subnet}")

    def reserve(self, lease: Lease) -> None:
        """Raises LabError: a podCIDR is given to a node for good, and to nobody else."""
        raise LabError("a Kubernetes cluster has no reservations")

    def _pod_cidrs(self) -> dict[str, list[str]]:
        return {each["metadata"]["name"]: each["spec"].get("podCIDRs", []) for each in self.server.nodes()}

    def _ask(self, question: Callable[[SubnetStore[Any]], Coroutine[Any, Any, T]]) -> T:
        return inside(self._namespace, lambda: super(KubernetesLabStore, self)._ask(question))
