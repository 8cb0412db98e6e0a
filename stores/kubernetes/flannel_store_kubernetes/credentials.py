"""Where the API server is and who this agent is there: a pod's service account, or a kubeconfig, or a bare URL.

The package ``kubernetes`` reads them, and keeps them fresh: a service account's token is read again each minute, an
exec plugin is asked again when its token runs out.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from flannel_core.printable import printable
from flannel_core.store import StoreError

from . import client_package

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and its cluster's authority
(https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


class Access(msgspec.Struct, frozen=True):
    """What the options and the environment say: Go flannel's rule is the URL and the kubeconfig if either is given,
    with the URL in place of the kubeconfig's, and otherwise the pod's service account."""

    api_url: str = ""
    kubeconfig: str = ""
    environ: Mapping[str, str] = os.environ
    service_account: Path = SERVICE_ACCOUNT

    @property
    def place(self) -> str:
        """Which API server is meant, known without reading anything; without secrets."""
        if self.api_url:
            scheme, slashes, rest = self.api_url.rpartition("://")
            return printable(f"{scheme}{slashes}{rest.rpartition('@')[2]}", 200)
        return self.kubeconfig or f"https://{self.environ.get(_HOST, '')}:{self.environ.get(_PORT, '')}"

    def shown(self, configuration: Any) -> str:
        """What is shown to the API server, in words, and how to see whether it is still good."""
        if not self.kubeconfig:
            if self.api_url:
                return "nothing, for --kube-api-url brings no credentials; name a kubeconfig with --kubeconfig-file"
            return f"the service account's token, {self.service_account / 'token'}; is the account still there?"
        if configuration.api_key:
            return f"the token or password in {self.kubeconfig}; get a new one"
        if configuration.cert_file:
            look = f"openssl x509 -noout -enddate -in {configuration.cert_file}"
            return f"the client certificate in {self.kubeconfig}; has it expired? (`{look}`)"
        return f"nothing, for {self.kubeconfig} has no token, no client certificate and no exec plugin that works"

    def configuration(self) -> Any:
        """A ``kubernetes.client.Configuration``. Blocks, runs an exec plugin. Raises StoreError with the cure."""
        configuration = client_package.submodule("client.configuration").Configuration()
        configuration.retries = False
        configuration.keep_alive = True
        if self.kubeconfig:
            self._read_kubeconfig(configuration)
        elif not self.api_url:
            self._read_service_account(configuration)
        self._check_files(configuration)
        if self.api_url:
            configuration.host = self._checked_url(configuration)
        return configuration

    def _read_kubeconfig(self, configuration: Any) -> None:
        given = f"--kubeconfig-file={printable(self.kubeconfig, 200)}"
        cure = (
            "`kubectl config view --raw --minify --flatten` prints one; inside a pod leave the option out, and the "
            "service account is used"
        )
        try:
            with Path(self.kubeconfig).open("rb"):
                pass
            client_package.kube_config().load_kube_config(
                self.kubeconfig, client_configuration=configuration, persist_config=False
            )
        except OSError as error:
            where = "" if error.filename in (None, self.kubeconfig) else f"{printable(str(error.filename), 200)}: "
            raise StoreError(f"{given}: {where}{os.strerror(error.errno or 0).lower()}; {cure}") from None
        except Exception as error:  # whatever its parsers trip over
            raise StoreError(
                f"{given}: is not a usable kubeconfig: {printable(_first_line(error), 200)}; {cure}"
            ) from None

    def _read_service_account(self, configuration: Any) -> None:
        if not self.environ.get(_HOST) or not self.environ.get(_PORT):
            raise StoreError(
                f"where the Kubernetes API server is is not known: this is no pod ({_HOST} and {_PORT} are not set); "
                f"give --kubeconfig-file, or --kube-api-url"
            )
        package = client_package.submodule("config.incluster_config")
        token, authority = self.service_account / "token", self.service_account / "ca.crt"
        try:
            package.InClusterConfigLoader(str(token), str(authority), environ=self.environ).load_and_set(configuration)
        except (package.ConfigException, OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self.service_account}: the pod's service account cannot be used: "
                f"{printable(_first_line(error), 200)}; it needs the files token and ca.crt there (is "
                f"automountServiceAccountToken false?)"
            ) from None

    def _check_files(self, configuration: Any) -> None:
        """A certificate that is none would otherwise show at the first connection, without its name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for what, file in (("authority", configuration.ssl_ca_cert), ("client certificate", configuration.cert_file)):
            if not file:
                continue
            try:
                if what == "authority":
                    context.load_verify_locations(file)
                else:
                    context.load_cert_chain(file, configuration.key_file)
            except (OSError, TypeError) as error:  # ssl.SSLError is the former; no key at all the latter
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
                raise StoreError(
                    f"{self.place}: its {what} cannot be used: {file}, {printable(reason.lower(), 120)}; it has to be "
                    f"PEM, and a client's needs its key"
                ) from None

    def _checked_url(self, configuration: Any) -> str:
        url = self.api_url
        if "://" not in url:  # as client-go
            url = f"{'https' if configuration.ssl_ca_cert or configuration.cert_file else 'http'}://{url}"
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good:
            raise StoreError(
                f"--kube-api-url={printable(self.api_url, 200)}: expected the URL of an API server such as "
                f"https://192.0.2.1:6443"
            )
        return url


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
