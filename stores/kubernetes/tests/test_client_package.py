"""Of the package ``kubernetes`` no more is loaded than an agent needs, and the rest is still to be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOAD = """
import sys
from flannel_store_kubernetes import client_package
client_package.submodule("client.rest").RESTClientObject
client_package.submodule("config.incluster_config").InClusterConfigLoader
"""
KUBECONFIG = """
loader = client_package.kube_config()
assert loader is client_package.kube_config()
loader.KubeConfigLoader
"""


def loaded(program: str) -> set[str]:
    program += "\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


HEAVY = {"pydantic", "requests", "requests_oauthlib", "oauthlib", "dateutil", "websocket", "aiohttp", "google.auth"}


def test_a_pods_credentials_and_the_transport_load_neither_models_nor_what_they_need() -> None:
    modules = loaded(LOAD)
    assert modules & (HEAVY | {"yaml", "kubernetes.client.models", "kubernetes.dynamic", "kubernetes.watch"}) == set()


def test_a_kubeconfig_adds_yaml() -> None:
    modules = loaded(LOAD + KUBECONFIG)
    assert "yaml" in modules
    assert modules & (HEAVY | {"kubernetes.client.models", "kubernetes.client.api_client"}) == set()


@pytest.mark.parametrize(
    "use",
    [
        "loader.OAuth2Session(client_id='x').refresh_token",
        "loader.oauthlib.oauth2.rfc6749.errors.InvalidClientIdError",
        "loader.ApiClient().call_api",
        "import kubernetes; kubernetes.client.ApiClient; kubernetes.client.CoreV1Api",
        "from kubernetes import watch; watch.Watch",
        "assert 'google.auth' not in sys.modules, 'its place is free again'",
        "import requests_oauthlib, oauthlib.oauth2; oauthlib.oauth2.WebApplicationClient; requests_oauthlib.OAuth1",
    ],
)
def test_what_is_not_loaded_is_there_when_it_is_asked_for(use: str) -> None:
    loaded(LOAD + KUBECONFIG + use)


def test_a_program_that_has_loaded_all_of_it_goes_on_with_that() -> None:
    whole = "import kubernetes, kubernetes.config.kube_config as whole\n"
    loaded(whole + LOAD + "assert client_package.kube_config() is whole; kubernetes.client.models.V1Node")
