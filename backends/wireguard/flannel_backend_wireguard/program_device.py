"""WireGuard in a program, wireguard-go or boringtun: the configuration protocol on its Unix socket, and its life.

https://www.wireguard.com/xplatform/ describes the protocol. The socket lies in the state directory, so that a second
flannel on the machine has its own; the program is given it open.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from flannel_core.errors import FlannelError
from flannel_core.secret import Secret

from .device import FoundDevice, FoundPeer, NoDevice, PeerChange
from .keys import KEY_BYTES, key_bytes
from .wireguard_objects import WireguardDevice, WireguardPeer, WireguardProcess

SOCKETS = Path("/var/run/wireguard")
"""The well-known place of the sockets."""
ANSWER_SECONDS = 1.0
"""Of a running one; the agent waits meanwhile."""
START_SECONDS = 5.0
STOP_SECONDS = 2.0
SETTINGS = {"LOG_LEVEL": "error", "WG_SUDO": "1"}
"""Of wireguard-go; of boringtun, which else gives up the rights that it needs for its sockets."""


class ProgramDevices:
    """The devices that programs run, by their sockets in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def socket_of(self, device: str) -> Path:
        return self._directory / f"{device}.sock"

    def runs(self, device: str) -> bool:
        """True if the program answers."""
        try:
            self._ask(device, "get=1\n\n")
        except (NoDevice, OSError, FlannelError):
            return False
        return True

    def start(self, wanted: WireguardProcess) -> None:
        """In the background, in a session of its own: it outlives the agent. Raises FlannelError, OSError."""
        path = self.socket_of(wanted.device)
        self.stop(wanted.device)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            umask = os.umask(0o177)
            try:
                listening.bind(str(path))
            finally:
                os.umask(umask)
            listening.listen()
            _show(wanted.device, path)
            listening.set_inheritable(True)
            pid = os.posix_spawn(
                wanted.program,
                [wanted.program, "--foreground", wanted.device],
                {**os.environ, **SETTINGS, "WG_UAPI_FD": str(listening.fileno())},
                file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)],
                setsid=True,
            )
        self._pid_file(wanted.device).write_text(f"{pid} {_started(pid)}\n")
        try:
            self._ask(wanted.device, "get=1\n\n", START_SECONDS)
        except (NoDevice, OSError, FlannelError) as error:
            how = f"does not answer: {error}" if _started(pid) else "ended"
            raise FlannelError(f"{wanted.program} {wanted.device} {how}; run it by hand to see why") from None

    def stop(self, device: str) -> None:
        """The program, if it still is the one that was started here."""
        with suppress(OSError, ValueError):
            pid, started = self._pid_file(device).read_text().split()
            if started and started == _started(int(pid)):
                os.kill(int(pid), signal.SIGTERM)
                give_up = time.monotonic() + STOP_SECONDS
                while _started(int(pid)) == started and time.monotonic() < give_up:
                    with suppress(ChildProcessError):
                        os.waitpid(int(pid), os.WNOHANG)
                    time.sleep(0.01)
        path = self.socket_of(device)
        with suppress(OSError):
            if (SOCKETS / path.name).readlink() == path:
                (SOCKETS / path.name).unlink()
        self._pid_file(device).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _pid_file(self, device: str) -> Path:
        return self._directory / f"{device}.pid"

    def read(self, device: str) -> FoundDevice:
        return decode(self._ask(device, "get=1\n\n"))

    def set_device(self, wanted: WireguardDevice) -> None:
        self._ask(wanted.device, f"set=1\nprivate_key={wanted.key.reveal().hex()}\nlisten_port={wanted.port}\n\n")

    def set_peers(self, device: str, puts: Sequence[PeerChange], removes: Sequence[WireguardPeer]) -> None:
        lines = ["set=1"]
        for peer in removes:
            lines += [f"public_key={key_bytes(peer.key).hex()}", "remove=true"]
        for change in puts:
            lines += encode(change)
        self._ask(device, "\n".join(lines) + "\n\n")

    def _ask(self, device: str, request: str, seconds: float = ANSWER_SECONDS) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(seconds)
                asking.connect(str(self.socket_of(device)))
                asking.sendall(request.encode())
                answer = b""
                while not answer.endswith(b"\n\n"):
                    more = asking.recv(65536)
                    if not more:
                        break
                    answer += more
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoDevice from None
        text = answer.decode("ascii", "replace")
        number = text.rpartition("errno=")[2].strip()
        if number != "0":
            raise FlannelError(f"the program of {device} refuses it (errno {number or 'none'})")
        return text


def encode(change: PeerChange) -> Iterator[str]:
    """The lines of one peer."""
    peer = change.peer
    yield f"public_key={key_bytes(peer.key).hex()}"
    yield f"preshared_key={peer.psk.reveal().hex() if peer.psk else '00' * KEY_BYTES}"
    if not change.keep_endpoint:
        yield f"endpoint={peer.endpoint}"
    yield f"persistent_keepalive_interval={peer.keepalive}"
    yield "replace_allowed_ips=true"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


def decode(text: str) -> FoundDevice:
    """The answer to ``get=1``. Raises FlannelError for what is none."""
    key: Secret | None = None
    port = 0
    peers: list[dict[str, str]] = []
    allowed: list[list[str]] = []
    try:
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == "public_key":
                peers.append({})
                allowed.append([])
            if name == "private_key":
                key = Secret(bytes.fromhex(value))
            elif name == "listen_port":
                port = int(value)
            elif name == "allowed_ip" and peers:
                allowed[-1].append(value)
            elif peers:
                peers[-1][name] = value
        found = tuple(_peer(peer, tuple(networks)) for peer, networks in zip(peers, allowed, strict=True))
    except (KeyError, ValueError) as error:
        raise FlannelError("a WireGuard program's answer cannot be read") from error
    return FoundDevice(None if key == Secret(bytes(KEY_BYTES)) else key, port, found)


def _peer(found: dict[str, str], allowed_ips: tuple[str, ...]) -> FoundPeer:
    psk = bytes.fromhex(found.get("preshared_key", ""))
    return FoundPeer(
        bytes.fromhex(found["public_key"]),
        found.get("endpoint", ""),
        allowed_ips,
        Secret(psk) if any(psk) else None,
        int(found.get("persistent_keepalive_interval", 0)),
        int(found.get("last_handshake_time_sec", 0)) + int(found.get("last_handshake_time_nsec", 0)) / 1e9,
        int(found.get("rx_bytes", 0)),
        int(found.get("tx_bytes", 0)),
    )


def _show(device: str, path: Path) -> None:
    """Where `wg` looks for it, and wireguard-go for whether it still is wanted."""
    SOCKETS.mkdir(mode=0o700, exist_ok=True)
    link = SOCKETS / f"{device}.sock.new"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    link.replace(SOCKETS / f"{device}.sock")


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks, "" if there is none: a number is given to others later. Field 22
    of proc_pid_stat(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
