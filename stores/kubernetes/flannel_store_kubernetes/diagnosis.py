"""Why an API server does not answer, or refuses, for a person: what it means, and the cure. Pure but for urllib3's and
Python's exceptions, which it reads."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import msgspec
from urllib3 import exceptions

from flannel_core.printable import printable

_AUTHORITY = "name its authority in the kubeconfig, certificate-authority"
_CURES = {
    # X509_V_ERR_... of OpenSSL's x509_vfy.h
    9: "compare the clocks of both machines",
    10: "renew it on the API server (kubeadm certs renew apiserver), or compare the clocks of both machines",
    18: _AUTHORITY,
    19: _AUTHORITY,
    20: _AUTHORITY,
    62: "reach it by one of its certificate's names, or set tls-server-name in the kubeconfig",
    64: "reach it by one of its certificate's addresses, or set tls-server-name in the kubeconfig",
}
_NO_SERVER = (
    "it is no Kubernetes API server, or a proxy or login page answers in its place; see --kube-api-url, HTTPS_PROXY "
    "and NO_PROXY"
)


ANONYMOUS = "system:anonymous"
"""As whom a server knows one who shows nothing."""


class Details(msgspec.Struct, frozen=True, rename="camel"):
    """Of a Status."""

    retry_after_seconds: int = 0


class ApiStatus(msgspec.Struct, frozen=True):
    """How an API server says no: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/"""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: Details | None = None


def unreachable(error: Exception) -> str:
    """What failed on the way, without the server's name."""
    proxy = next((cause for cause in _causes(error) if isinstance(cause, exceptions.ProxyError)), None)
    if proxy is not None:
        said = printable(" ".join(str(proxy.original_error).split()), 160)
        return f"is behind a proxy that does not let us through ({said}); see HTTPS_PROXY and NO_PROXY"
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                cure = _CURES.get(cause.verify_code, _AUTHORITY)
                return f"its certificate is not accepted: {printable(cause.verify_message.rstrip('.'), 160)}; {cure}"
            case ssl.SSLError() if "ALERT" in (cause.reason or ""):
                alert = (cause.reason or "").partition("ALERT_")[2].replace("_", " ").lower()
                return f"does not accept this host's certificate ({alert}); renew client-certificate in the kubeconfig"
            case ssl.SSLError() if cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
                return "does not speak TLS; write http:// in --kube-api-url or the kubeconfig"
            case ssl.SSLEOFError():
                return (
                    "ends the connection in TLS; if it speaks none, write http:// in --kube-api-url or the kubeconfig"
                )
            case ssl.SSLError():
                return f"TLS fails: {printable(cause.reason or str(cause), 160)}"
            case socket.gaierror():
                return f"its name cannot be looked up ({printable(cause.strerror or str(cause), 80)})"
            case exceptions.TimeoutError() | TimeoutError():
                return "does not answer"
            case OSError(errno=int(errno)):
                return os.strerror(errno).lower()
    return f"ended the connection ({printable(' '.join(str(error).split()), 160)})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What lies behind an error, the innermost first: urllib3 keeps it in several places."""
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and cause not in seen:
            seen.append(cause)
            pending += [*cause.args, getattr(cause, "original_error", None), cause.__cause__, cause.__context__]
    return reversed(seen)


def refused(verb: str, resource: str, status: int, status_object: ApiStatus | None, text: bytes, shown: str) -> str:
    """What an answer that is no success means. ``shown`` says in words what was shown to the server."""
    if status_object is None:
        if b"HTTP request to an HTTPS server" in text:
            return "speaks TLS; write https:// in --kube-api-url or the kubeconfig"
        return f"answers {status} with '{printable(text.strip(), 60)}': {_NO_SERVER}"
    said = printable(" ".join(status_object.message.split()), 240) or status_object.reason
    match status:
        case 401:
            return f"does not accept who we are ({said}); it was shown {shown}"
        case 403 if ANONYMOUS in said:
            return f"forbids strangers to {verb} {resource} ({said}); it was shown {shown}"
        case 403:
            return (
                f"forbids to {verb} {resource} ({said}); allow it in the agent's ClusterRole: "
                f'apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]'
            )
        case _:
            return f"cannot {verb} {resource} now: {status} ({said})"


def no_kubernetes(content_type: str, beginning: bytes) -> str:
    """What a success means that is not what was asked for."""
    what = printable(content_type, 60) or "something"
    return f"answers with {what}, '{printable(beginning.strip(), 40)}': {_NO_SERVER}"
