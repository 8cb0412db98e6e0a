"""Nodes as the API server sends them, decoded to no more than flannel wants of them, and what they say. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, inet_pton
from typing import Any, Generic, TypeVar

import msgspec

from flannel_core.lease import Endpoint, Family, IPAddress, IPNetwork, Lease, Malformed
from flannel_core.lease_json import MAX_VALUE_BYTES
from flannel_core.printable import printable

from .annotations import Said, key, key_prefix, said_type

SaidT = TypeVar("SaidT", bound=Said)
_NOTHING = Said()


class Metadata(msgspec.Struct, Generic[SaidT], frozen=True, rename="camel", gc=False):
    """Of any object's metadata."""

    name: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    resource_version: str = ""
    annotations: SaidT | None = None


class Spec(msgspec.Struct, frozen=True, gc=False):
    """``podCIDR`` repeats the first of ``podCIDRs``, which clusters older than 1.16 do not have."""

    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")
    pod_cidrs: tuple[str, ...] | None = msgspec.field(default=None, name="podCIDRs")

    @property
    def written(self) -> tuple[str, ...]:
        """The podCIDRs as text."""
        return self.pod_cidrs or ((self.pod_cidr,) if self.pod_cidr else ())


class Condition(msgspec.Struct, frozen=True, gc=False):
    """Of a node's status."""

    type: str = ""
    status: str = ""
    reason: str = ""


class Status(msgspec.Struct, frozen=True, gc=False):
    """Of a node."""

    conditions: tuple[Condition, ...] | None = None


class Node(msgspec.Struct, Generic[SaidT], frozen=True, gc=False):
    """Any node, without its status: that is the most of it, and changes every few minutes."""

    metadata: Metadata[SaidT]
    spec: Spec = Spec()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def said(self) -> Said:
        return self.metadata.annotations or _NOTHING

    @property
    def is_managed(self) -> bool:
        """Whether a flannel of this prefix runs there."""
        return self.said.kube_subnet_manager == "true"

    @property
    def revision(self) -> int:
        return number(self.metadata.resource_version)

    @property
    def created(self) -> int:
        """Unix time; 0 if it cannot be told."""
        try:
            return int(datetime.fromisoformat(self.metadata.creation_timestamp or "").timestamp())
        except ValueError:
            return 0


class WholeNode(Node[SaidT], Generic[SaidT], frozen=True, gc=False):
    """This host's own, with its status."""

    status: Status = Status()

    def condition(self, type: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((c for c in self.status.conditions or () if c.type == type), None)


class BadPodCidrs(ValueError):
    """``str(error)`` says what is wrong with a node's podCIDRs, as a part of a sentence that names the node."""


class Dialect:
    """How nodes are read in a cluster whose flannel annotations have one prefix. Raises StoreError for a bad one."""

    def __init__(self, prefix: str) -> None:
        self.prefix = key_prefix(prefix)
        said = said_type(self.prefix)
        self._node = msgspec.json.Decoder(Node[said])  # type: ignore[valid-type]
        self._nodes = msgspec.json.Decoder(tuple[Node[said], ...])  # type: ignore[valid-type]
        self._whole = msgspec.json.Decoder(WholeNode[said])  # type: ignore[valid-type]

    def key(self, field: str) -> str:
        """The annotation that a field of ``Said`` is."""
        return key(self.prefix, field)

    def whole(self, text: bytes) -> WholeNode[Any]:
        """Raises ValueError."""
        return self._whole.decode(text)

    def node(self, text: bytes | msgspec.Raw) -> Node[Any] | Malformed:
        """One node. Raises ValueError for what has no name, so that nobody could tell which it is."""
        try:
            return self._node.decode(text)
        except (ValueError, RecursionError) as error:
            metadata = _NAMED.decode(text).metadata
            return Malformed(
                metadata.name,
                f"the node cannot be read: {printable(str(error), 160)}",
                number(metadata.resource_version),
            )

    def nodes(self, array: bytes | memoryview) -> Sequence[Node[Any] | Malformed]:
        """The nodes of a JSON array. Raises ValueError if it is none."""
        try:
            return self._nodes.decode(array)
        except (ValueError, RecursionError):  # one of them, or the whole
            return [self.node(raw) for raw in _RAWS.decode(array)]

    def entry(self, node: Node[Any] | Malformed) -> Lease | Malformed | None:
        """What a node stands for among the leases. None: nothing, no flannel of this prefix runs there."""
        if isinstance(node, Malformed):
            return node
        if not node.is_managed:
            return None
        said = node.said
        try:
            cidrs = pod_cidrs(node.spec)
            ipv4 = self._endpoint(cidrs, 4, said.public_ip, said.backend_data, "public_ip", "backend_data")
            ipv6 = self._endpoint(cidrs, 6, said.public_ipv6, said.backend_v6_data, "public_ipv6", "backend_v6_data")
            if ipv4 is None and ipv6 is None:
                raise ValueError(self._nothing_said(cidrs))
            backend_type = self._bounded("backend_type", said.backend_type or "")
        except ValueError as error:
            return Malformed(node.name, str(error), node.revision)
        return Lease(node.name, sys.intern(backend_type), ipv4, ipv6, node.created, node.revision)

    def _endpoint(
        self,
        cidrs: dict[Family, IPNetwork],
        family: Family,
        address: str | None,
        data: str | None,
        address_field: str,
        data_field: str,
    ) -> Endpoint | None:
        """None: the node is not reached in that family. Raises ValueError."""
        subnet = cidrs.get(family)
        if subnet is None or not address:
            return None
        return Endpoint(subnet, self.address(family, address, address_field), _data(self._bounded(data_field, data)))

    def _nothing_said(self, cidrs: dict[Family, IPNetwork]) -> str:
        if not cidrs:
            return "the node has no podCIDR"
        fields = {4: "public_ip", 6: "public_ipv6"}
        return f"the node lacks the annotation {' or '.join(self.key(fields[family]) for family in sorted(cidrs))}"

    def address(self, family: Family, text: str, field: str) -> IPAddress:
        """The value of the annotation that is ``field``. Raises ValueError that names it."""
        try:
            return IPv4Address(_packed_ipv4(text)) if family == 4 else _ipv6(text)
        except ValueError:
            raise ValueError(
                f"its annotation {self.key(field)} is '{printable(text)}', which is no IPv{family} address"
            ) from None

    def _bounded(self, field: str, value: str | None) -> str:
        if value is not None and len(value) > MAX_VALUE_BYTES:
            raise ValueError(
                f"its annotation {self.key(field)} has {len(value)} characters, more than {MAX_VALUE_BYTES}"
            )
        return value or ""


def pod_cidrs(spec: Spec) -> dict[Family, IPNetwork]:
    """The first podCIDR of each family; empty if there is none yet. Raises BadPodCidrs."""
    written = spec.written
    if len(written) > 2:
        raise BadPodCidrs(f"pod cidrs should be IPv4/IPv6 only or dualstack, and are {printable(', '.join(written))}")
    found: dict[Family, IPNetwork] = {}
    for text in written:
        try:
            network = IPv6Network(text, strict=False) if ":" in text else _ipv4_network(text)
        except ValueError:
            raise BadPodCidrs(f"has the pod cidr '{printable(text)}', which is none") from None
        if "/" not in text:
            raise BadPodCidrs(f"has the pod cidr '{printable(text)}', which lacks its length")
        found.setdefault(network.version, network)
    return found


def number(resource_version: str) -> int:
    """A resourceVersion as what it is in every cluster, etcd's revision; 0 where it is something else."""
    return int(resource_version) if resource_version.isdecimal() and len(resource_version) < 20 else 0


def _data(text: str) -> bytes | None:
    return None if text in ("", "null") else text.encode()


def _ipv4_network(text: str) -> IPv4Network:
    """As IPv4Network reads it, in a third of the time. Raises ValueError."""
    address, _, length = text.partition("/")
    if len(length) > 2 or not length.isdecimal() or not length.isascii():
        return IPv4Network(text, strict=False)  # a mask, or none at all
    return IPv4Network((_packed_ipv4(address), int(length)), strict=False)


def _packed_ipv4(text: str) -> bytes:
    """As IPv4Address reads it, in a quarter of the time. Raises ValueError."""
    try:
        return inet_pton(AF_INET, text)
    except OSError as error:
        raise ValueError(text) from error


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise ValueError("a zone means nothing elsewhere")
    return IPv6Address(text)


class _Named(msgspec.Struct):
    metadata: Metadata[Any]


_NAMED = msgspec.json.Decoder(_Named)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
