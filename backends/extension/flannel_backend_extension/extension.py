"""The extension backend: an operator's own commands move the packets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from flannel_core.backend import Announcement, Backend, Node
from flannel_core.errors import CannotGoOn
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.objects import Object
from flannel_core.target import Target

from .command_target import MEMORY, CommandTarget
from .commands import PeerCommand, Startup
from .running import CommandFailed, run
from .words import words_of

OUTPUT_BYTES = 8192
"""The most that PreStartupCommand may print: a lease whose value is above 16 KiB is refused by every peer, and JSON may
need several bytes for one."""

Command = str | list[str]


class ExtensionOptions(msgspec.Struct, frozen=True):
    """The keys of ``Backend`` for type extension. A command is a text, split at white space, or a list of words. No
    shell runs it."""

    pre_startup_command: Annotated[
        Command, msgspec.Meta(description="run before the subnet is known; what it prints is told to all peers")
    ] = msgspec.field(default="", name="PreStartupCommand")
    post_startup_command: Annotated[
        Command,
        msgspec.Meta(
            description="run once the subnet is known; NETWORK, SUBNET, IPV6SUBNET, PUBLIC_IP and PUBLIC_IPV6 are set"
        ),
    ] = msgspec.field(default="", name="PostStartupCommand")
    subnet_add_command: Annotated[
        Command,
        msgspec.Meta(
            description="run for each peer; SUBNET and PUBLIC_IP are set, stdin is what its first command printed"
        ),
    ] = msgspec.field(default="", name="SubnetAddCommand")
    subnet_remove_command: Annotated[
        Command,
        msgspec.Meta(description="run for each peer that leaves or changes, with what was set when it was added"),
    ] = msgspec.field(default="", name="SubnetRemoveCommand")
    command_timeout: Annotated[
        int, msgspec.Meta(ge=1, le=3600, description="seconds after which a command that still runs is killed")
    ] = msgspec.field(default=30, name="CommandTimeout")


class ExtensionBackend(Backend[ExtensionOptions, Any]):
    """Commands run once: what was run is remembered until the host boots, so a restart of the agent runs nothing
    again."""

    Options = ExtensionOptions
    Data = str | None
    published_type = "extension"
    accepts = frozenset({"extension"})
    example: ClassVar[Mapping[str, Any]] = {
        "SubnetAddCommand": ["ip", "route", "replace", "$SUBNET", "via", "$PUBLIC_IP"],
        "SubnetRemoveCommand": ["ip", "route", "del", "$SUBNET", "via", "$PUBLIC_IP"],
    }
    state_files = (MEMORY,)
    restart_options = frozenset({"pre_startup_command"})

    def __init__(self, options: ExtensionOptions, state_directory: Path = Path("/run/flannel")) -> None:
        super().__init__(options, state_directory)
        self._target = CommandTarget(state_directory)

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        """Raises CannotGoOn where PreStartupCommand fails, as Go flannel ends."""
        words = words_of(self.options.pre_startup_command)
        data = None
        if words:
            data = self._target.memory.output_of(words)
            if data is None:
                data = _announced(previous) if dry_run else await self._pre_startup(words)
        has_ipv4 = host.public_ipv4 is not None
        return Announcement(host.mtu, data if has_ipv4 else None, None if has_ipv4 else data)

    async def _pre_startup(self, words: tuple[str, ...]) -> str:
        try:
            output = await run(words, {}, "", self.options.command_timeout)
        except CommandFailed as error:
            raise CannotGoOn(f"PreStartupCommand: {error}") from error
        if len(output.encode()) > OUTPUT_BYTES:
            raise CannotGoOn(
                f"PreStartupCommand printed {len(output.encode())} bytes, which every peer would have to be told; let "
                f"it print {OUTPUT_BYTES} at most"
            )
        self._target.memory.printed(words, output)
        return output

    def local(self, node: Node) -> Iterable[Object]:
        if node.lease is None:
            return
        config, lease = node.config, node.lease
        ipv4, ipv6 = lease.ipv4, lease.ipv6
        environment = (
            ("NETWORK", str(config.ipv4.network) if config.ipv4 else NO_IPV4),
            ("SUBNET", str(ipv4.subnet) if ipv4 else NO_IPV4),
            ("IPV6SUBNET", str(ipv6.subnet) if ipv6 else "::/0"),
            ("PUBLIC_IP", str(ipv4.public_ip) if ipv4 else "0.0.0.0"),
            ("PUBLIC_IPV6", str(ipv6.public_ip) if ipv6 else "<nil>"),
        )
        yield Startup(words_of(self.options.post_startup_command), environment, self.options.command_timeout)

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        add, remove = words_of(self.options.subnet_add_command), words_of(self.options.subnet_remove_command)
        if not add and not remove:
            return
        ipv4, ipv6 = lease.ipv4, lease.ipv6
        environment = [
            ("SUBNET", str(ipv4.subnet) if ipv4 else NO_IPV4),
            ("PUBLIC_IP", str(ipv4.public_ip) if ipv4 else "0.0.0.0"),
        ]
        if ipv6:
            environment += [("IPV6SUBNET", str(ipv6.subnet)), ("PUBLIC_IPV6", str(ipv6.public_ip))]
        subnets = " and ".join(map(str, lease.subnets))
        yield PeerCommand(
            subnets, tuple(environment), _announced(lease) or "", add, remove, self.options.command_timeout
        )

    def targets(self) -> Iterable[Target]:
        return (self._target,)


NO_IPV4 = "0.0.0.0/0"
"""What Go flannel sets where there is no IPv4 network."""


def _announced(lease: Lease | None) -> str | None:
    for endpoint in lease.endpoints if lease else ():
        if isinstance(endpoint.data, str):
            return endpoint.data
    return None
