"""What flannel says about a host in the annotations of its node: the keys, and what a host has to write. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any, cast

import msgspec

from flannel_core.lease_json import compact_json
from flannel_core.printable import printable
from flannel_core.store import StoreError, Wish

DEFAULT_PREFIX = "flannel.alpha.coreos.com"
_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?$")
"""What Go flannel takes, unanchored at its left as there (pkg/subnet/kube/annotations.go)."""
_CURE = f"write --kube-annotation-prefix={DEFAULT_PREFIX}, or a DNS name of yours such as flannel.example.com/blue"


class Said(msgspec.Struct, frozen=True, gc=False):
    """What the annotations of one node say, None where there is no such annotation.

    A field ``public_ip`` is the annotation ``PREFIX/public-ip``. The last four are the operator's, the others are
    written by the node's own agent.
    """

    kube_subnet_manager: str | None = None
    backend_type: str | None = None
    backend_data: str | None = None
    backend_v6_data: str | None = None
    public_ip: str | None = None
    public_ipv6: str | None = None
    public_ip_overwrite: str | None = None
    public_ipv6_overwrite: str | None = None
    node_public_ip: str | None = None
    node_public_ipv6: str | None = None


def key_prefix(prefix: str) -> str:
    """What stands before ``public-ip``: ``P`` -> ``P/``, ``P/x`` -> ``P/x-``. Raises StoreError with Go's sentences."""
    given = f"--kube-annotation-prefix={printable(prefix)}"
    if prefix.count("/") > 1:
        raise StoreError(f"{given}: subnet/kube: prefix can contain at most single slash; {_CURE}")
    whole = prefix if "/" in prefix else f"{prefix}/"
    if not whole.endswith(("/", "-")):
        whole += "-"
    if not _PREFIX.search(whole):
        raise StoreError(f"{given}: subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*; {_CURE}")
    return whole


def key(prefix: str, field: str) -> str:
    """The annotation that a field of ``Said`` is; ``prefix`` is what :func:`key_prefix` returned."""
    return prefix + field.replace("_", "-")


def said_type(prefix: str) -> type[Said]:
    """``Said`` with the names that its fields have in JSON. All other annotations of a node are skipped unread."""
    fields: list[tuple[str, Any, Any]] = [
        (field, str | None, msgspec.field(default=None, name=key(prefix, field))) for field in Said.__struct_fields__
    ]
    return cast(type[Said], msgspec.defstruct("Said", fields, bases=(Said,), frozen=True, gc=False))


def to_say(said: Said, wish: Wish) -> dict[str, str]:
    """The fields of ``Said`` that have to be written so that the node says what ``wish`` wants published; none if it
    does already.

    Byte for byte what Go flannel writes (AcquireLease in pkg/subnet/kube/kube.go), gaps included: IPv6 only with the
    backends that Go has it for, no IPv4 annotations for vxlan without IPv4, and an operator's overwrite in place of the
    address.
    """
    kind = wish.backend_type
    wanted = {"kube_subnet_manager": "true", "backend_type": kind}
    if kind != "vxlan" or wish.ipv4_data is not None:
        wanted["backend_data"] = _data(wish.ipv4_data)
        wanted["public_ip"] = said.public_ip_overwrite or str(wish.public_ipv4 or IPv4Address(0))
    if wish.public_ipv6 is not None and (
        kind in ("host-gw", "extension") or (kind in ("vxlan", "wireguard") and wish.ipv6_data is not None)
    ):
        wanted["backend_v6_data"] = _data(wish.ipv6_data)
        wanted["public_ipv6"] = said.public_ipv6_overwrite or str(wish.public_ipv6)
    if all((getattr(said, field) or "") == value for field, value in wanted.items()):
        return {}  # an empty backend-type is not worth a write of its own
    return {field: value for field, value in wanted.items() if getattr(said, field) != value}


def _data(data: bytes | None) -> str:
    return "null" if data is None else compact_json(data).decode()
