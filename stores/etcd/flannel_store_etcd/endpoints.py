"""Where etcd is and how to prove who is who, as the options say it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from flannel_core.printable import printable
from flannel_core.store import StoreError

DEFAULT_PORT = 2379


class Endpoint(NamedTuple):
    """One member of the cluster. ``str()`` of it is its URL."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_endpoints(text: str, *, secure: bool) -> tuple[Endpoint, ...]:
    """The URLs of --etcd-endpoints, separated by commas. One without a scheme is https if ``secure``.

    Raises StoreError for one that is none.
    """
    found = tuple(_endpoint(url.strip(), secure) for url in text.split(",") if url.strip())
    if not found:
        raise StoreError("--etcd-endpoints is empty; give the URLs of etcd's members, as http://192.0.2.1:2379")
    return tuple(dict.fromkeys(found))


def _endpoint(url: str, secure: bool) -> Endpoint:
    try:
        parts = urlsplit(url if "://" in url else f"{'https' if secure else 'http'}://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise StoreError(
            f"--etcd-endpoints: '{printable(url)}' is not the URL of an etcd member, which looks like "
            f"http://192.0.2.1:2379 or https://etcd1.example:2379"
        )
    return Endpoint(parts.scheme, host, DEFAULT_PORT if port is None else port)


class Tls:
    """The files of --etcd-cafile, --etcd-certfile and --etcd-keyfile ("" where not given).

    They are looked at for each connection, so a certificate that was rotated is taken without a restart.
    """

    def __init__(self, cafile: str, certfile: str, keyfile: str) -> None:
        """Raises StoreError if one of certificate and key is given without the other."""
        if bool(certfile) != bool(keyfile):
            given, lacking = ("certfile", "keyfile") if certfile else ("keyfile", "certfile")
            raise StoreError(
                f"--etcd-{given} is given without --etcd-{lacking}; a client certificate for etcd takes both"
            )
        self.cafile = cafile
        self.certfile = certfile
        self.keyfile = keyfile
        self._context: tuple[tuple[int, ...], ssl.SSLContext] | None = None

    @property
    def given(self) -> bool:
        return bool(self.cafile or self.certfile)

    def check(self) -> None:
        """Raises StoreError for a file that cannot be read, or is none."""
        try:
            for option, path in self._files():
                _may_be_read(option, path)
            self.context()
        except ValueError as error:
            raise StoreError(str(error)) from None

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or later, with the certificates as they are on disk now; the system's authorities where no other is
        named. Raises ValueError, with the file's name, for one that is no certificate or cannot be read."""
        seen = self._seen()
        if self._context is None or self._context[0] != seen:
            # Reading the system's authorities takes 25 ms, too much for each try while etcd is away.
            self._context = (seen, self._read())
        return self._context[1]

    def _seen(self) -> tuple[int, ...]:
        """Changes when one of the files does."""
        numbers: list[int] = []
        for option, path in self._files():
            try:
                found = Path(path).stat()
            except OSError as error:
                raise ValueError(f"--etcd-{option} {printable(path, 200)}: {_strerror(error)}") from None
            numbers += (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return tuple(numbers)

    def _read(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.cafile or None)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(
                f"--etcd-cafile {printable(self.cafile, 200)}: {_strerror(error, 'is no PEM certificate')}"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if self.certfile:
            try:
                context.load_cert_chain(self.certfile, self.keyfile, password="")
            except OSError as error:
                raise ValueError(
                    f"--etcd-certfile {printable(self.certfile, 200)}, --etcd-keyfile {printable(self.keyfile, 200)}: "
                    f"{_strerror(error, 'are no PEM certificate with its unencrypted private key')}"
                ) from None
        return context

    def _files(self) -> Sequence[tuple[str, str]]:
        files = (("cafile", self.cafile), ("certfile", self.certfile), ("keyfile", self.keyfile))
        return [(option, path) for option, path in files if path]


def _may_be_read(option: str, path: str) -> None:
    """Told apart here, because OpenSSL names no file."""
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"--etcd-{option} {printable(path, 200)}: {_strerror(error)}") from None


def _strerror(error: OSError, otherwise: str = "cannot be read") -> str:
    if isinstance(error, ssl.SSLError) or error.strerror is None:
        return otherwise
    return error.strerror.lower()
