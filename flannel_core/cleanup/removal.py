"""What ``flannelctl cleanup`` does: the reconciler, with nothing wanted, at every place where something of ours is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from ipaddress import ip_network
from pathlib import Path

import msgspec

from .. import subnet_env
from ..errors import FlannelError
from ..firewall.iptables import IptablesTarget
from ..firewall.nftables import NftablesTarget
from ..journal import Journal
from ..left_behind import targets_left_behind
from ..lock import AgentLock, Flanneld, flannelds, user_of
from ..netlink import addresses, links
from ..netlink.devices import link_names
from ..netlink.kernel import KernelTarget
from ..netlink.reader import dump
from ..netlink.socket import NetlinkSocket
from ..objects import Object
from ..ownership import Owned, OwnedFile
from ..reconciler.engine import Reconciler
from ..target import Scope, Target
from .files import RECORD, remove, state_files
from .look_alikes import LookAlike, look_alikes

SELDOM = 3600.0
"""Seconds between readings of the traffic rules: more than a cleanup takes."""
CAME_BACK = "it was removed and is there again: something else makes it"


class Kept(msgspec.Struct, frozen=True):
    """Something of ours that could not be removed."""

    object: str
    reason: str


class Cleanup(msgspec.Struct, frozen=True, kw_only=True):
    """What was done; with ``dry_run`` what would be. ``removed`` are objects in the words of ``ip``, ``files`` paths.
    ``subnets`` were this host's: their lease stays in the store. ``look_alikes`` are not touched."""

    dry_run: bool
    removed: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    look_alikes: tuple[LookAlike, ...] = ()


async def clean_up(subnet_file: Path, *, dry_run: bool) -> Cleanup:
    """Remove everything that the agents of ``subnet_file`` left on this host. What is on record as ours and belongs to
    another agent that runs here by now is that one's.

    Raises FlannelError while an agent of ``subnet_file`` runs, and if the record cannot be read. What could not be
    removed stays on record for the next time, and every file with it.
    """
    directory = subnet_file.parent
    others = _others(subnet_file)
    has_state = bool(state_files(subnet_file, is_recorded=False))
    with AgentLock(directory) if has_state and not dry_run else nullcontext():  # no agent starts there meanwhile
        record = OwnedFile(directory / RECORD, dry_run=dry_run)
        is_recorded = record.owned != Owned()
        theirs = _owned_by(others)
        record.owned = _without(record.owned, theirs)
        was_ours = record.owned
        removal = _Removal(record, dry_run=dry_run)
        iptables, nftables = IptablesTarget(SELDOM), NftablesTarget(SELDOM)
        if is_recorded:
            left_behind, lost = targets_left_behind(was_ours, {"kernel", iptables.name, nftables.name}, directory)
            removal.kept += [Kept("objects on record", reason) for reason in lost]
            for target in (*left_behind, iptables, nftables, KernelTarget()):
                await removal.empty(target)
        else:
            for target in (iptables, nftables):
                await target.read(Scope())
        files = [] if removal.kept else state_files(subnet_file, is_recorded=is_recorded)
        env, _ = subnet_env.read(subnet_file)
        if not dry_run:
            removal.kept += [Kept(str(path), reason) for path, reason in remove(files)]
        return Cleanup(
            dry_run=dry_run,
            removed=tuple(item.describe() for item in removal.removed),
            files=tuple(map(str, files)),
            subnets=tuple(map(str, env.subnets)) if env and subnet_file in files else (),
            kept=tuple(removal.kept),
            look_alikes=tuple(
                look_alikes(subnet_file, was_ours, theirs, removal.removed, iptables, nftables, is_recorded=is_recorded)
            ),
        )


class _Removal:
    """What is gone, and what is not, target by target: one that does not answer holds up no other."""

    def __init__(self, record: OwnedFile, *, dry_run: bool) -> None:
        self.removed: list[Object] = []
        self.kept: list[Kept] = []
        self._record = record
        self._dry_run = dry_run

    async def empty(self, target: Target) -> None:
        """Remove what is ours at ``target``."""
        try:
            await target.open()
            try:
                doomed = await self._doomed(target)
                left = [] if self._dry_run else await self._remove(target)
            finally:
                await target.close()
        except FlannelError as error:
            self.kept.append(Kept(f"what is at {target.name}", str(error)))
            return
        reasons = {kept.object: kept.reason for kept in left}
        self.kept += left
        self.removed += [item for item in doomed if item.describe() not in reasons]

    async def _doomed(self, target: Target) -> list[Object]:
        return [change.object for change in await self._reconciler(target).plan()]

    async def _remove(self, target: Target) -> list[Kept]:
        reconciler = self._reconciler(target)
        try:
            await reconciler.settle()
            reasons = {failure.object.identity: failure.reason for failure in reconciler.failures()}
            return [Kept(item.describe(), reasons.get(item.identity, CAME_BACK)) for item in await self._doomed(target)]
        finally:
            await reconciler.close()

    def _reconciler(self, target: Target) -> Reconciler:
        reconciler = Reconciler([target], self._record, Journal(), on_swept=lambda: None)
        reconciler.pruning = True
        return reconciler


def _others(subnet_file: Path) -> list[Flanneld]:
    """Every other flanneld at work in this network namespace. Raises FlannelError if one is at work with
    ``subnet_file``."""
    running = list(flannelds())
    for one in running:
        if one.writes(subnet_file):
            raise FlannelError(f"{one} uses {subnet_file.parent}; stop it first: {_how_to_stop(one.pid)}")
    if (pid := user_of(subnet_file.parent)) is not None:
        raise FlannelError(f"an agent (pid {pid} where it runs) uses {subnet_file.parent}; stop it first")
    return running


def _how_to_stop(pid: int) -> str:
    try:
        return stop_command(Path(f"/proc/{pid}/cgroup").read_text(), pid)
    except OSError:
        return stop_command("", pid)


def stop_command(cgroup: str, pid: int) -> str:
    """How to stop process ``pid``, by what its /proc/PID/cgroup says of who started it."""
    if "/kubepods" in cgroup:
        return "Kubernetes runs it; take flannel's DaemonSet off this node"
    units = {line.rpartition("/")[2] for line in cgroup.splitlines() if line.endswith(".service")}
    return f"`systemctl stop {units.pop()}`" if units else f"`kill {pid}`"


def _owned_by(others: Sequence[Flanneld]) -> Owned:
    """What ``others`` have on record, their networks as subnet.env says, and every device with an address of these."""
    devices: set[str] = set()
    networks: set[str] = set()
    for other in others:
        env, _ = subnet_env.read(other.subnet_file)
        networks.update(map(str, env.networks) if env else ())
        if not other.is_go:
            owned = OwnedFile(other.subnet_file.parent / RECORD, dry_run=True).owned
            devices |= owned.devices
            networks |= owned.networks
    return Owned(frozenset(devices | _devices_in(networks)), frozenset(networks))


def _devices_in(networks: Collection[str]) -> set[str]:
    prefixes = [ip_network(network) for network in networks]
    with NetlinkSocket() as kernel:
        names = link_names(kernel.dump(links.dump()))
        rows = map(addresses.decode, dump(kernel, addresses.dump()))
        return {names[row.index] for row in rows if any(row.address in prefix for prefix in prefixes)}


def _without(ours: Owned, theirs: Owned) -> Owned:
    return msgspec.structs.replace(
        ours,
        devices=ours.devices - theirs.devices,
        networks=frozenset(network for network in ours.networks if not _overlaps(network, theirs.networks)),
    )


def _overlaps(network: str, others: Collection[str]) -> bool:
    one = ip_network(network)
    return any(one.version == other.version and one.overlaps(other) for other in map(ip_network, others))
