"""A Kubernetes API server for the lab and for tests.

    with KubernetesServer(directory) as server:  # plain HTTP on 127.0.0.1, a free port; TLS with a certificate
        server.put_nodes([node("n1", ["10.5.1.0/24"]), node("n2", ["10.5.2.0/24"], size=5000)])
        server.write_kubeconfig(directory / "kubeconfig")  # as the service account of kube-flannel.yml
        server.compact()
        server.cut_watches()
        server.faults(delay=0.5, refuse=3)
        server.node("n1")["metadata"]["annotations"]
        server.counts()["patch nodes/status"]

What it serves, and how faithfully, stands in ``api``.
"""

from .certificates import Certificate
from .node import node
from .process import KubernetesServer

__all__ = ["Certificate", "KubernetesServer", "node"]
