"""The parts of the package ``kubernetes`` that an agent needs, without what its ``__init__`` modules and what OpenID
Connect would load.

``import kubernetes`` takes 200 ms and 24 MB (``dynamic``, ``informer``, ``stream``, 600 models, pydantic, requests).
With what is below, transport and a pod's credentials take 40 ms and 5 MB, a kubeconfig's 1 MB more. So those packages
stand in ``sys.modules`` as they are before their ``__init__`` has run, and what a kubeconfig needs only to refresh an
OpenID token is loaded when it comes to that. Whatever else imports a submodule of ``kubernetes`` still gets it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_UNRUN = ("kubernetes", "kubernetes.config", "kubernetes.utils")


def submodule(name: str) -> Any:
    """``kubernetes.NAME``. Raises ImportError."""
    if "kubernetes" not in sys.modules:
        for package in _UNRUN:
            spec = find_spec(package)
            if spec is None:
                raise ImportError(f"there is no {package}")
            sys.modules[package] = module_from_spec(spec)
    return importlib.import_module(f"kubernetes.{name}")


def kube_config() -> Any:
    """``kubernetes.config.kube_config``, without the auth provider gcp, which Kubernetes 1.26 dropped: it would load
    google-auth wherever that is installed, 15 MB. Raises ImportError."""
    if "kubernetes.config.kube_config" in sys.modules:
        return sys.modules["kubernetes.config.kube_config"]
    client = submodule("client")
    client.ApiClient = _later("kubernetes.client.api_client", "ApiClient")
    stand_ins = [_Package("oauthlib"), ModuleType("oauthlib.oauth2"), ModuleType("requests_oauthlib")]
    vars(stand_ins[-1])["OAuth2Session"] = _later("requests_oauthlib", "OAuth2Session")
    absent: dict[str, Any] = {module.__name__: module for module in stand_ins}
    absent = {name: module for name, module in {"google.auth": None, **absent}.items() if name not in sys.modules}
    sys.modules.update(absent)
    try:
        return submodule("config.kube_config")
    finally:
        del client.ApiClient  # its own way of importing it is lazy as well
        for name in absent:
            del sys.modules[name]


class _Package(ModuleType):
    """A package whose submodules are imported when they are asked for."""

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self.__name__}.{name}")


def _later(module: str, name: str) -> Any:
    """A class or function of a module that is imported when it is called."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **keywords)

    return call
