"""What the checks of stores are made of: hosts that ask, what they ask for, and the class that a plugin fills in."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from flannel_core.lease import Endpoint, Lease, Malformed
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.store import Capability, Snapshot, SubnetStore, Wish

from .applying import Conformance, needs
from .watching import by_key

Check = Callable[..., Awaitable[None]]


def net_conf(**keys: Any) -> NetworkConfig:
    """The configuration of a net-conf.json with these keys: 10.5.0.0/16 in /24s unless they say otherwise."""
    return parse_config(
        json.dumps({"Network": "10.5.0.0/16", "SubnetLen": 24, **keys}).encode(), "the check's net-conf"
    )


IPV4 = net_conf()
DUAL = net_conf(EnableIPv6=True, IPv6Network="fd00:5::/48")
IPV6 = net_conf(EnableIPv4=False, EnableIPv6=True, IPv6Network="fd00:5::/48")
TWENTY = net_conf(SubnetMin="10.5.1.0", SubnetMax="10.5.20.0")
ONE = net_conf(SubnetMin="10.5.7.0", SubnetMax="10.5.7.0")


def host(number: int, **more: Any) -> Wish:
    """The wish of host ``number``, in both families; its data tells its wishes from another's."""
    return Wish(
        public_ipv4=more.pop("public_ipv4", IPv4Address("192.0.2.0") + number),
        public_ipv6=more.pop("public_ipv6", IPv6Address("2001:db8::") + number),
        backend_type=more.pop("backend_type", "vxlan"),
        ipv4_data=more.pop("ipv4_data", b'{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}' % number),
        ipv6_data=more.pop("ipv6_data", b'{"VNI":1,"VtepMAC":"06:00:00:00:00:%02x"}' % number),
        **more,
    )


OUT_OF_THE_WAY = host(1, previous_subnets=(IPv4Network("10.5.1.0/24"),))
"""The wish of host 1 where a check writes entries of its own: it must not draw one of their subnets."""
GO_LEASE = b'{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}'
"""As a Go node writes it."""
MALFORMED = {
    "empty": b"",
    "not JSON": b'{"PublicIP":',
    "no object": b"[]",
    "no address": b'{"PublicIP":"nowhere","PublicIPv6":null}',
    "not UTF-8": b'{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"\xff"}',
    "nested deep": b'{"BackendData":' + b"[" * 5000,
    "huge": b'{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"' + b"x" * 20_000 + b'"}',
}


def reservation(number: int = 1, subnet: str = "10.5.50.0/24") -> Lease:
    """What an operator reserves for host ``number``: its address, and nothing that a backend would say."""
    return Lease("", ipv4=Endpoint(IPv4Network(subnet), IPv4Address("192.0.2.0") + number))


async def first_snapshot(store: SubnetStore[Any]) -> Snapshot:
    """What a watcher that begins now is told of all leases; before that it may hear of single ones."""
    async for event in store.leases():
        if isinstance(event, Snapshot):
            return event
    raise AssertionError("leases() ended before a Snapshot came")


async def entries(store: SubnetStore[Any]) -> dict[str, Lease | Malformed]:
    """What stands in the store, by key."""
    return by_key(await first_snapshot(store))


def check(*features: Capability | Literal["allocation"]) -> Callable[[Check], Callable[..., None]]:
    """An async check as pytest calls it, for stores that have these capabilities; "allocation" is what ``allocates`` of
    the kit says."""

    def as_test(body: Check) -> Callable[..., None]:
        @needs(*features)
        @functools.wraps(body)
        def run(self: Any, *arguments: Any, **named: Any) -> None:
            async def bounded() -> None:
                async with asyncio.timeout(60):
                    await body(self, *arguments, **named)

            asyncio.run(bounded())

        return run

    return as_test


class StoreKit(Conformance):
    """What a plugin says. ``place`` is what the stores of one check share, and differs from check to check."""

    store_class: ClassVar[type[SubnetStore[Any]]]
    """The store under test; its ``capabilities`` say which checks apply."""
    shortest_ttl: ClassVar[int] = 1
    """Seconds: the shortest ``lease_ttl`` that the store can be given."""
    patience: ClassVar[float] = 5.0
    """Seconds within which a change is heard, a renewal done and an expired lease gone."""
    quiet: ClassVar[float] = 10.0
    """Seconds within which a watch that has nothing to say has to say that it is alive."""

    allocates: ClassVar[bool] = True
    """False for a store whose subnets are another's to give: each host has one of its own from the beginning, and
    entries need not be named after their subnets. All stores at one ``place`` then belong to one host, which has been
    given subnets of IPV4 and DUAL."""

    @classmethod
    def features(cls) -> frozenset[str] | None:
        if not hasattr(cls, "store_class"):
            return None
        return cls.store_class.capabilities | ({"allocation"} if cls.allocates else frozenset())

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        """Where the stores of one check keep their leases: a directory, or what you override this with."""
        return tmp_path

    def make_store(self, place: Any, *, lease_ttl: int = 86_400, dry_run: bool = False) -> SubnetStore[Any]:
        """A new store, not opened, as one more agent at ``place`` would make it. ``lease_ttl`` in seconds."""
        raise NotImplementedError

    async def write_raw(self, place: Any, key: str, value: bytes) -> None:
        """Put an entry of any content among the leases, as a faulty or foreign program would."""
        raise NotImplementedError

    async def write_unheard(self, place: Any, key: str, value: bytes) -> None:
        """The same, so that a running watcher finds only that it missed something: the history is gone (trimmed,
        compacted) before it could read it."""
        raise NotImplementedError

    async def everything(self, place: Any) -> object:
        """Something equal before and after if nothing at all was written at ``place`` in between."""
        raise NotImplementedError

    async def write_config(self, place: Any, text: bytes) -> None:
        """Put net-conf.json there. To be overridden for a store that cannot do it itself."""
        async with self.store(place) as store:
            await store.set_config(text)

    @asynccontextmanager
    async def store(self, place: Any, **how: Any) -> AsyncIterator[SubnetStore[Any]]:
        """A store of ``make_store``, open."""
        store = self.make_store(place, **how)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def soon(self, awaitable: Awaitable[Any]) -> Any:
        """What is awaited, within ``patience``. Raises AssertionError."""
        try:
            async with asyncio.timeout(self.patience):
                return await awaitable
        except TimeoutError:
            raise AssertionError(f"no answer within {self.patience} s") from None
