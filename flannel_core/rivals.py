"""Two hosts that are reached at one address: which of them a lease belongs to. The other is refused by name."""

from __future__ import annotations

import os
import time
from typing import Any

from .backend import Backend
from .claim import addresses
from .host import Host
from .lease import Lease
from .node_families import CannotStart
from .store import SubnetStore

ANSWER_SECONDS = 2.0
"""How long a host that keeps a lease may take to say so. It hears of the question at once."""
ASK_AGAIN_SECONDS = 60.0
"""How often it is asked at most."""


class Rivals:
    """What is known of others that hold, or ask for, the lease that our address names."""

    def __init__(self, store: SubnetStore[Any]) -> None:
        self.asked_for_ours: float | None = None
        """Unix time at which another host asked for our lease last, and was refused."""
        self._store = store
        self._kept: tuple[str, int] | None = None
        self._asked = 0.0

    def note(self) -> None:
        """Another host asks for the lease that we keep."""
        self.asked_for_ours = time.time()

    async def refuse_if_kept(self, lease: Lease, backend: Backend[Any, Any], host: Host) -> None:
        """``lease`` (its data decoded) is ours by nothing but its address: a host that lost its memory, as each does at
        a reboot, comes back to it, but it may also be that of another host, which runs. Raises CannotStart naming both
        if it is; StoreUnavailable."""
        if self._has_its_mac(lease, backend, host):
            return
        name = (lease.key, lease.created)
        if self._kept != name or time.monotonic() > self._asked + ASK_AGAIN_SECONDS:
            self._asked = time.monotonic()
            self._kept = name if await self._store.contest(lease, ANSWER_SECONDS) else None
        if self._kept == name:
            known = "".join(f", {_words(identity)}" for identity in _identities(lease, backend))
            own = " and ".join(str(address) for address in (host.ipv4, host.ipv6) if address is not None)
            raise CannotStart(
                f"{addresses(lease)} is the address of another host, which runs and holds "
                f"{' and '.join(map(str, lease.subnets))}{known}; this host, {os.uname().nodename} with "
                f"{host.interface} {own}, needs an address of its own: see --public-ip and --iface"
            )

    def _has_its_mac(self, lease: Lease, backend: Backend[Any, Any], host: Host) -> bool:
        """A device that an earlier flannel, perhaps Go's, has left here tells that it was this host."""
        macs = {link.mac for link in host.links.values() if link.mac}
        return any(_words(identity).split()[-1] in macs for identity in _identities(lease, backend))


def _identities(lease: Lease, backend: Backend[Any, Any]) -> tuple[object, ...]:
    """What peers know its host by; nothing if it is of another backend."""
    if backend.Data is not None and any(endpoint.data is None for endpoint in lease.endpoints):
        return ()
    return tuple(backend.identities(lease))


def _words(identity: object) -> str:
    """``VtepMAC over IPv4 8a:bd:bc:33:d6:3e``."""
    return " ".join(map(str, identity)) if isinstance(identity, tuple) else str(identity)
