"""Why a member does not answer, for a person: what its errors mean, and what it is if it is no etcd v3."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl

from flannel_core.printable import printable

from .endpoints import Endpoint

SECONDS = 2.0
"""How long a look at what an endpoint is may take."""

MOST_BYTES = 4096
_NO_TLS = "does not speak TLS; if that is meant, write http:// in --etcd-endpoints"
_VERIFICATION = {
    # X509_V_ERR_... of OpenSSL's x509_vfy.h
    10: "its certificate has expired",
    9: "its certificate is not valid yet; compare the clocks",
    18: "its certificate is signed by itself; name its authority with --etcd-cafile",
    19: "its certificate is signed by an authority that is not trusted here; name the right one with --etcd-cafile",
    20: "its certificate is signed by an authority that is not trusted here; name the right one with --etcd-cafile",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}


def said(error: OSError) -> str:
    """What failed, without the endpoint's name."""
    match error:
        case ssl.SSLCertVerificationError():
            text = _VERIFICATION.get(error.verify_code, "its certificate is not accepted")
            return f"{text} ({printable(error.verify_message.rstrip('.'), 120)})"
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            alert = (error.reason or "").partition("ALERT_")[2].replace("_", " ").lower()
            return f"does not accept this host's certificate ({alert}); see --etcd-certfile and --etcd-keyfile"
        case ssl.SSLError() if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return _NO_TLS
        case ssl.SSLError():
            return f"TLS fails ({printable(error.reason or str(error), 120)})"
        case socket.gaierror():
            return f"its name cannot be looked up ({printable(error.strerror or str(error), 80)})"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:
            return printable(str(error), 160) or "ended the connection"


async def diagnose(endpoint: Endpoint) -> str | None:
    """What is at ``endpoint``, which takes connections but does not speak HTTP/2. None if that cannot be told."""
    try:
        async with asyncio.timeout(SECONDS):
            tls = await _speaks_tls(endpoint)
            if tls and not endpoint.secure:
                return "speaks TLS; write https:// in --etcd-endpoints"
            answer = await _version_answer(endpoint, tls)
    except ssl.SSLError as error:  # etcd 3.4 ends a gRPC connection without a word, and says why to HTTP/1.1
        return said(error)
    except (OSError, TimeoutError):
        return None
    if endpoint.secure and not tls:
        return _NO_TLS if answer else None
    version = re.search(rb'"etcdserver":\s*"(([0-9]+)\.[0-9.]+)', answer)
    if version and int(version[2]) < 3:
        return f"is etcd {version[1].decode()}, which has no v3 API; flannel needs etcd 3.4 or later"
    first = answer.partition(b"\r\n")[0]
    return f"is no etcd, it answers '{printable(first, 60)}'" if first else "is no etcd, it ends the connection"


async def _speaks_tls(endpoint: Endpoint) -> bool:
    try:
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=_unverified())
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except ConnectionError:
        return False
    writer.transport.abort()
    return True


async def _version_answer(endpoint: Endpoint, tls: bool) -> bytes:
    """etcd 2 and the gateway of etcd 3 tell their version over HTTP/1.1."""
    context = _unverified() if tls else None
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    answer = b""
    try:
        writer.write(f"GET /version HTTP/1.0\r\nHost: {endpoint.host}\r\n\r\n".encode())
        async with asyncio.timeout(SECONDS / 2):
            while len(answer) < MOST_BYTES and (data := await reader.read(MOST_BYTES)):
                answer += data
    except (ConnectionError, TimeoutError):
        pass  # what was said before that will do
    finally:
        writer.transport.abort()
    return answer


def _unverified() -> ssl.SSLContext:
    """For a look only: nothing is believed, nothing is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
