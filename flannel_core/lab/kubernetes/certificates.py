"""Certificates for an API server that is not kept longer than a lab."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flannel_core.lab.network import LabError

if TYPE_CHECKING:
    import trustme


class Certificate(NamedTuple):
    """Files in PEM: the server's certificate, its key, who signed it, and who signs clients' (None: they show none)."""

    file: Path
    key: Path
    ca: Path
    client_ca: Path | None = None


def new_authority() -> trustme.CA:
    """Raises LabError where trustme is not installed."""
    try:
        import trustme
    except ImportError:
        raise LabError("trustme is missing: pip install flannel-core[lab]") from None
    return trustme.CA()


def issue(authority: trustme.CA, names: Iterable[str], directory: Path) -> Certificate:
    """For a server that is reached by these names or addresses; clients' are by the same authority."""
    issued = authority.issue_cert(*names)
    ca, file, key = (directory / name for name in ("ca.pem", "server.pem", "server.key"))
    authority.cert_pem.write_to_path(ca)
    file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    return Certificate(file, key, ca, ca)
