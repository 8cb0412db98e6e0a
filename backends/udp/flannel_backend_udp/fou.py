"""Ports of the kernel at which UDP is taken for something else (FOU, "foo over UDP"): an object, and its target."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from socket import AF_INET
from typing import ClassVar

from flannel_core.errors import FlannelError
from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.netlink.message import MalformedMessage, attribute, attribute_u8, u8, u16_network
from flannel_core.netlink.socket import NetlinkError
from flannel_core.objects import Object
from flannel_core.target import Actual, Failure, Put, Scope, Target, TargetUnavailable

FAMILY = "fou"
# linux/fou.h
FOU_CMD_ADD, FOU_CMD_DEL, FOU_CMD_GET = 1, 2, 3
FOU_ATTR_PORT, FOU_ATTR_AF, FOU_ATTR_IPPROTO, FOU_ATTR_TYPE, FOU_ATTR_LOCAL_V4 = 1, 2, 3, 4, 6
FOU_ENCAP_DIRECT = 1
IPPROTO_IPIP = 4


class FouPort(Object, frozen=True, gc=False):
    """What arrives at this port of ``local``, of the host's, is IPv4 in UDP without a header between them."""

    kind: ClassVar[str] = "fou"

    port: int
    local: str

    @property
    def identity(self) -> tuple[object, ...]:
        return ("fou", self.port, self.local)

    @property
    def record(self) -> str | None:
        return f"{self.port}/{self.local}"

    def describe(self) -> str:
        return f"fou port {self.port} ipproto {IPPROTO_IPIP} local {self.local}"


class FouTarget(Target):
    """The FOU ports of this network namespace. They have no owner: ours are those on record."""

    name = "fou"
    stages: ClassVar[Mapping[type[Object], int]] = {FouPort: -10}
    poll_seconds: ClassVar[float | None] = 2.0

    async def read(self, scope: Scope) -> Iterable[Actual]:
        """Raises TargetUnavailable."""
        try:
            with GenericSocket(FAMILY) as fou:
                answers = fou.dump(FOU_CMD_GET)
        except NoFamily:
            return []
        except (FlannelError, MalformedMessage) as error:
            raise TargetUnavailable(f"the FOU ports cannot be read: {error}") from error
        ports = [port for answer in answers if (port := decode(answer))]
        records = scope.records.get(self.name, frozenset())
        return [Actual(port) for port in ports if port.record in records or port.identity in scope.wanted]

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        """Raises TargetUnavailable."""
        try:
            with GenericSocket(FAMILY) as fou:
                failures = [failure for item in removes if (failure := _try(fou, FOU_CMD_DEL, item, errno.ENOENT))]
                failures += [failure for put in puts if (failure := _try(fou, FOU_CMD_ADD, put.object))]
                return failures
        except FlannelError as error:
            raise TargetUnavailable(f"the FOU ports cannot be written: {error}") from error


def _try(fou: GenericSocket, command: int, item: Object, harmless: int = 0) -> Failure | None:
    assert isinstance(item, FouPort)
    body = (
        attribute(FOU_ATTR_PORT, item.port.to_bytes(2, "big"))
        + attribute_u8(FOU_ATTR_AF, AF_INET)
        + attribute(FOU_ATTR_LOCAL_V4, IPv4Address(item.local).packed)
    )
    if command == FOU_CMD_ADD:
        body += attribute_u8(FOU_ATTR_IPPROTO, IPPROTO_IPIP) + attribute_u8(FOU_ATTR_TYPE, FOU_ENCAP_DIRECT)
    try:
        fou.request(command, body)
    except NetlinkError as error:
        if error.number == harmless:
            return None
        if error.number == errno.EADDRINUSE:
            return Failure(
                item,
                f"UDP port {item.port} of {item.local} is in use: `ss -lunp` names the program, `ip fou show` another"
                " FOU port; or another Port under Backend in net-conf.json, of every host",
                foreign=True,
            )
        return Failure(item, f"the kernel refuses it: {error}")
    return None


def decode(answer: Mapping[int, bytes]) -> FouPort | None:
    """From the attributes of one; None: for another protocol, of another family, or at any address."""
    local = answer.get(FOU_ATTR_LOCAL_V4, b"")
    if FOU_ATTR_PORT not in answer or len(local) != 4 or not any(local):
        return None
    protocol, kind = (u8(answer[number]) if number in answer else 0 for number in (FOU_ATTR_IPPROTO, FOU_ATTR_TYPE))
    if (protocol, kind) != (IPPROTO_IPIP, FOU_ENCAP_DIRECT):
        return None
    return FouPort(u16_network(answer[FOU_ATTR_PORT]), str(IPv4Address(local)))
