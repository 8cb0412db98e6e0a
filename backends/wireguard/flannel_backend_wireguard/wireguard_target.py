"""WireGuard devices as a target: keys, ports and peers, read every two seconds since nothing notifies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec

from flannel_core import threads
from flannel_core.errors import FlannelError
from flannel_core.objects import Object
from flannel_core.state_file import write_atomically
from flannel_core.target import Actual, Failure, Put, Scope, Target, TargetUnavailable

from .device import Control, FoundPeer, NoDevice, PeerChange
from .kernel_device import KernelDevices
from .keys import key_text
from .program_device import ProgramDevices
from .wireguard_objects import WireguardDevice, WireguardPeer, WireguardProcess

log = logging.getLogger(__name__)

TOLD_FILE = "wireguard-told.json"
STATE_FILES = (TOLD_FILE, *(f"{device}.{end}" for device in ("flannel-wg", "flannel-wg-v6") for end in ("sock", "pid")))
FRESH_SECONDS = 180.0
"""REJECT_AFTER_TIME of WireGuard's paper (section 6.1): a session without a handshake for longer is dead, and so is
what it had learnt."""
DEVICES = ("flannel-wg", "flannel-wg-v6")


class WireguardTarget(Target):
    """Every peer of a device of ours is ours. Which endpoint a peer was given last is remembered in the state
    directory: where the device knows another one by now, the peer itself was heard there."""

    name = "wireguard"
    stages: ClassVar[Mapping[type[Object], int]] = {WireguardProcess: 3, WireguardDevice: 5, WireguardPeer: 30}
    poll_seconds = 2.0

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._told_file = directory / TOLD_FILE
        self._kernel = KernelDevices()
        self._programs = ProgramDevices(directory)
        self._clock = clock
        self._told: dict[str, str] | None = None
        """Device and key of a peer -> its endpoint as last written."""

    async def read(self, scope: Scope) -> Iterable[Actual]:
        """Raises TargetUnavailable."""
        self.scope = scope
        found: list[Actual] = []
        for device in DEVICES:
            if device not in scope.devices or (scope.only is not None and device not in scope.only):
                continue
            try:
                found += self._device(device)
            except NoDevice:
                continue
            except (OSError, FlannelError) as error:
                raise TargetUnavailable(f"{device} cannot be read: {error}") from error
        return found

    def _device(self, device: str) -> Iterable[Actual]:
        if self._is_program(device):
            if not self._programs.runs(device):
                return
            yield Actual(WireguardProcess(device, ""))
        known = self._control(device).read(device)
        if known.key is not None:
            yield Actual(WireguardDevice(device, known.key, known.port))
        for peer in known.peers:
            yield self._peer(device, peer)

    def _peer(self, device: str, peer: FoundPeer) -> Actual:
        key, age = key_text(peer.key), self._clock() - peer.handshake
        told = self._endpoints().get(f"{device} {key}", "")
        learnt = peer.endpoint not in ("", told) and age < FRESH_SECONDS
        item = WireguardPeer(
            device, key, peer.endpoint, peer.allowed_ips, peer.psk, peer.keepalive, learnt, told if learnt else ""
        )
        facts: dict[str, object] = {"received_bytes": peer.received, "sent_bytes": peer.sent}
        if peer.handshake:
            facts["handshake_age"] = round(age)
        return Actual(item, facts)

    def _is_program(self, device: str) -> bool:
        return self._programs.socket_of(device).exists()

    def _control(self, device: str) -> Control:
        return self._programs if self._is_program(device) else self._kernel

    async def write(self, puts: Sequence[Put], removes: Sequence[Object]) -> Sequence[Failure]:
        for item in removes:
            if isinstance(item, WireguardProcess):
                await threads.call(partial(self._programs.stop, item.device))
        devices = [put.object for put in puts if isinstance(put.object, WireguardProcess | WireguardDevice)]
        failures = [Failure(item, reason) for item in devices if (reason := await self._set(item))]
        changes = [_change(put) for put in puts if isinstance(put.object, WireguardPeer)]
        for device in DEVICES:
            failures += self._set_peers(
                device,
                [change for change in changes if change.peer.device == device],
                [item for item in removes if isinstance(item, WireguardPeer) and item.device == device],
            )
        return failures

    async def _set(self, item: WireguardProcess | WireguardDevice) -> str | None:
        """Why it failed. A program takes its time to start and to end, and nothing else waits for that."""
        try:
            if isinstance(item, WireguardProcess):
                await threads.call(partial(self._programs.start, item))
            else:
                self._control(item.device).set_device(item)
        except NoDevice:
            return f"there is no WireGuard device {item.device}"
        except (OSError, FlannelError) as error:
            return str(error)
        return None

    def _set_peers(self, device: str, puts: Sequence[PeerChange], removes: Sequence[WireguardPeer]) -> list[Failure]:
        """All at once; each by itself if that fails."""
        if not puts and not removes:
            return []
        control = self._control(device)
        try:
            control.set_peers(device, puts, removes)
        except NoDevice:
            # Who takes a peer from a device that is gone has nothing to do.
            return [Failure(change.peer, f"there is no WireGuard device {device}") for change in puts]
        except (OSError, FlannelError) as error:
            if len(puts) + len(removes) == 1:
                return [Failure(item, str(error)) for item in (*(change.peer for change in puts), *removes)]
            one_by_one = [self._set_peers(device, [change], ()) for change in puts]
            one_by_one += [self._set_peers(device, (), [peer]) for peer in removes]
            return [failure for failures in one_by_one for failure in failures]
        self._remember(device, [change.peer for change in puts if not change.keep_endpoint], removes)
        return []

    # --- what peers were told ------------------------------------------------------------------------------------

    def _endpoints(self) -> dict[str, str]:
        if self._told is None:
            try:
                self._told = msgspec.json.decode(self._told_file.read_bytes(), type=dict[str, str])
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self._told = {}  # an endpoint that is not as it should be counts as learnt then, while it is fresh
        return self._told

    def _remember(self, device: str, puts: Iterable[WireguardPeer], removes: Iterable[WireguardPeer]) -> None:
        told = self._endpoints()
        before = dict(told)
        for peer in removes:
            told.pop(f"{device} {peer.key}", None)
        told.update((f"{device} {peer.key}", peer.endpoint) for peer in puts)
        if told == before:
            return
        try:
            write_atomically(self._told_file, msgspec.json.encode(told), mode=0o600)
        except OSError as error:
            log.warning("%s: which endpoints peers were given is not remembered: %s", self._told_file, error.strerror)


def _change(put: Put) -> PeerChange:
    assert isinstance(put.object, WireguardPeer)
    before = put.previous
    keep = isinstance(before, WireguardPeer) and put.object.is_better_known_by(before)
    return PeerChange(put.object, keep_endpoint=keep)
