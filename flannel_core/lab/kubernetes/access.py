"""Who asks an API server, and what they may: tokens, client certificates, rights."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any

from .status import forbidden, path_forbidden, unauthorized

FLANNEL = "system:serviceaccount:kube-flannel:flannel"
"""The user that kube-flannel.yml makes."""
FLANNEL_RIGHTS = frozenset(
    {("get", "pods"), ("get", "nodes"), ("list", "nodes"), ("watch", "nodes"), ("patch", "nodes/status")}
)
"""Verb and resource, as in its ClusterRole."""
ADMIN = "lab-admin"
MASTERS = "system:masters"
"""Who is in this group may do everything."""
ANONYMOUS = "system:anonymous"
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
"""What anybody may get."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h."""

PeerCertificate = Mapping[str, Any]
"""What ``ssl.SSLSocket.getpeercert`` returns."""
Who = tuple[str, tuple[str, ...]]
"""A user's name and groups."""


class Access:
    """``tokens``: of whom each is; ``rights``: what each user may, who is not in ``MASTERS``."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.rights: dict[str, set[tuple[str, str]]] = {FLANNEL: set(FLANNEL_RIGHTS)}

    def user(self, authorization: str, certificate: PeerCertificate | None) -> Who:
        """Who asks. Raises ApiError 401 for a credential that is not valid."""
        if certificate:
            return self._of_certificate(certificate)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS, ()
        user = self.tokens.get(token.strip())
        if user is None:
            raise unauthorized()
        return user, (MASTERS,) if user == ADMIN else ()

    def _of_certificate(self, certificate: PeerCertificate) -> Who:
        if ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
            raise unauthorized()
        subject = [pair for entry in certificate.get("subject", ()) for pair in entry]
        names = [value for name, value in subject if name == "commonName"]
        return (names or [""])[0], tuple(value for name, value in subject if name == "organizationName")

    def check(self, who: Who, verb: str, resource: str, namespace: str, name: str) -> None:
        """Raises ApiError 403. ``resource`` with its subresource."""
        user, groups = who
        if MASTERS not in groups and (verb, resource) not in self.rights.get(user, set()):
            raise forbidden(user, verb, resource, namespace, name)

    def check_path(self, who: Who, path: str) -> None:
        """Raises ApiError 403 for a path that is no resource and not everybody's."""
        user, groups = who
        if MASTERS not in groups and path not in OPEN_PATHS:
            raise path_forbidden(user, "get", path)


def server_context(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """TLS with files in PEM. Clients may show a certificate by ``client_ca``; one that has expired is taken here, to be
    refused with 401 as a real server does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    return context
