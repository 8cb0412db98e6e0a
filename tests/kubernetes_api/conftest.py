"""The lab's API server and, where ``KUBE_APISERVER`` names one, a real kube-apiserver: the same tests for both.

    KUBE_APISERVER=/path/to/kube-apiserver .venv/bin/pytest tests/kubernetes_api

This repository holds no kube-apiserver. What differs between the two is a defect of the lab's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import trustme

from flannel_core.lab.kubernetes import KubernetesServer
from flannel_core.lab.kubernetes.certificates import issue
from flannel_core.lab.kubernetes.client import Client
from flannel_core.lab.kubernetes.endpoint import ApiServer
from flannel_core.lab.kubernetes.real import RealKubernetesServer


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session", params=["lab", *(["kube-apiserver"] if "KUBE_APISERVER" in os.environ else [])])
def server(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """Both speak TLS."""
    directory = tmp_path_factory.mktemp(request.param)
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    if request.param == "lab":
        with KubernetesServer(directory, certificate=issue(authority, ["127.0.0.1"], directory)) as lab:
            yield lab
    else:
        with RealKubernetesServer(directory, client_ca=ca) as real:
            yield real


@pytest.fixture
def admin(server: ApiServer) -> Iterator[Client]:
    """One who may do everything, on a server without nodes."""
    client = Client(server, server.admin_token)
    for item in client.ask("/api/v1/nodes").value["items"]:
        client.ask(f"/api/v1/nodes/{item['metadata']['name']}", "DELETE")
    wait_until_seen(client)
    yield client
    client.connection.close()


def wait_until_seen(client: Client) -> None:
    """Lists from memory (resourceVersion 0) may be behind for a moment, with a real server."""
    deadline = time.monotonic() + 10
    while client.ask("/api/v1/nodes", resourceVersion="0").value["items"]:
        assert time.monotonic() < deadline


@pytest.fixture
def flannel(server: ApiServer) -> Iterator[Client]:
    """The service account of kube-flannel.yml."""
    client = Client(server, server.token)
    yield client
    client.connection.close()
