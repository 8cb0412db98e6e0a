"""What every store has to do. Subclass :class:`StoreConformance` in your plugin's tests, a few lines are enough::

    class TestConformance(StoreConformance):
        store_class = EtcdStore

        @pytest.fixture
        def place(self, etcd_server):                       # what several agents share
            return Place(etcd_server, prefix=f"/{uuid4()}")

        def make_store(self, place, *, lease_ttl=86400, dry_run=False): ...
        async def write_raw(self, place, key, value): ...
        async def write_unheard(self, place, key, value): ...
        async def everything(self, place): ...

What a store cannot do (its ``capabilities``) is not asked of it: instead of ``test_a_released_subnet_is_free_again``
pytest then lists ``test_a_released_subnet_is_free_again__does_not_apply_without_release``.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flannel_core.allocation import fits
from flannel_core.errors import FlannelError
from flannel_core.lease import Endpoint, Lease, Malformed
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.store import (
    Alive,
    Capability,
    LeaseLost,
    NoSuchLease,
    OutOfSubnets,
    Request,
    Snapshot,
    StoreUnavailable,
    SubnetStore,
    Wish,
)

from .watching import Standing, by_key, told, watching

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


GO_LEASE = b'{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}'
"""As a Go node writes it."""
MALFORMED = {
    "empty": b"",
    "not JSON": b'{"PublicIP":',
    "no object": b"[]",
    "no address": b'{"PublicIP":"nowhere","PublicIPv6":null}',
    "not UTF-8": b'{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"\xff"}',
    "nested deep": b'{"BackendData":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge": b'{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"' + b"x" * 20_000 + b'"}',
}


def reservation(number: int = 1, subnet: str = "10.5.50.0/24") -> Lease:
    """What an operator reserves for host ``number``: its address, and nothing that a backend would say."""
    return Lease("", ipv4=Endpoint(IPv4Network(subnet), IPv4Address("192.0.2.0") + number))


async def entries(store: SubnetStore[Any]) -> dict[str, Lease | Malformed]:
    """What stands in the store, by key."""
    snapshot = await anext(aiter(store.leases()))
    assert isinstance(snapshot, Snapshot)
    return by_key(snapshot)


def check(*needs: Capability) -> Callable[[Check], Callable[..., None]]:
    """An async check as pytest calls it, for stores that have these capabilities."""

    def as_test(body: Check) -> Callable[..., None]:
        @functools.wraps(body)
        def run(self: Any, *arguments: Any, **named: Any) -> None:
            async def bounded() -> None:
                async with asyncio.timeout(60):
                    await body(self, *arguments, **named)

            asyncio.run(bounded())

        run.needs = frozenset(needs)  # type: ignore[attr-defined]
        return run

    return as_test


def _says_so(self: Any) -> None:
    """Nothing to check: the name says what the store does not have."""


class StoreConformance:
    """The checks. ``place`` is what the stores of one check share, and differs from check to check."""

    store_class: ClassVar[type[SubnetStore[Any]]]
    """The store under test; its ``capabilities`` say which checks apply."""
    shortest_ttl: ClassVar[int] = 1
    """Seconds: the shortest ``lease_ttl`` that the store can be given."""
    patience: ClassVar[float] = 5.0
    """Seconds within which a change is heard, a renewal done and an expired lease gone."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in dir(cls):
            needs: frozenset[Capability] = getattr(getattr(cls, name), "needs", frozenset())
            missing = needs - cls.store_class.capabilities
            if missing:
                setattr(cls, name, None)
                setattr(cls, f"{name}__does_not_apply_without_{'_and_'.join(sorted(missing))}", _says_so)

    # --- what a subclass says ------------------------------------------------------------------------------------

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

    # --- a subnet for a host ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("config", [IPV4, DUAL, IPV6], ids=["IPv4", "dual stack", "IPv6"])
    @check()
    async def test_a_host_gets_a_free_subnet_that_says_what_it_wished(self, place: Any, config: NetworkConfig) -> None:
        async with self.store(place) as store:
            lease = await store.acquire(Request(config, host(1)))
            assert fits(config, lease.subnets)
            assert lease.backend_type == "vxlan"
            for endpoint, address, data in (
                (lease.ipv4, host(1).public_ipv4, host(1).ipv4_data),
                (lease.ipv6, host(1).public_ipv6, host(1).ipv6_data),
            ):
                assert endpoint is None or (endpoint.public_ip, endpoint.data) == (address, data)
            assert await entries(store) == Standing(lease)

    @check()
    async def test_hosts_get_subnets_of_their_own(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            first = await one.acquire(Request(IPV4, host(1)))
            second = await two.acquire(Request(IPV4, host(2)))
            assert set(first.subnets).isdisjoint(second.subnets)
            assert first.created < second.created, "created orders leases by age"

    @check()
    async def test_twenty_hosts_racing_for_twenty_subnets_all_get_one(self, place: Any) -> None:
        async def race(number: int) -> Lease:
            async with self.store(place) as store:
                return await store.acquire(Request(TWENTY, host(number)))

        leases = await asyncio.gather(*(race(number) for number in range(1, 21)))
        assert len({lease.subnets for lease in leases}) == 20
        async with self.store(place) as store:
            with pytest.raises(OutOfSubnets, match="20"):
                await store.acquire(Request(TWENTY, host(21)))

    @check()
    async def test_the_subnet_that_subnet_env_names_is_taken_if_it_is_free(self, place: Any) -> None:
        async with self.store(place) as store:
            before = (IPv4Network("10.5.77.0/24"),)
            assert (await store.acquire(Request(IPV4, host(1, previous_subnets=before)))).subnets == before
            assert (await store.acquire(Request(IPV4, host(2, previous_subnets=before)))).subnets != before

    @check()
    async def test_a_host_that_asks_ten_times_has_one_lease(self, place: Any) -> None:
        async with self.store(place) as store:
            leases = [await store.acquire(Request(IPV4, host(1))) for _ in range(10)]
            assert len({(lease.key, lease.created) for lease in leases}) == 1
            assert list(await entries(store)) == [leases[0].key]

    @check()
    async def test_a_host_that_comes_back_finds_its_lease_by_its_address(self, place: Any) -> None:
        async with self.store(place) as store:
            assert await store.previous(host(1)) is None
            lease = await store.acquire(Request(IPV4, host(1)))
            for _ in range(10):
                assert told(await store.previous(host(1))) == told(lease)
            assert await store.previous(host(2)) is None

    @check()
    async def test_a_host_with_a_new_address_finds_its_lease_by_what_it_remembers(self, place: Any) -> None:
        async with self.store(place) as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            moved = host(2, remembered_key=lease.key, remembered_created=lease.created)
            assert told(await store.previous(moved)) == told(lease)
            taken = await store.acquire(Request(IPV4, moved))
            assert (taken.key, taken.created) == (lease.key, lease.created)
            assert taken.ipv4 is not None
            assert taken.ipv4.public_ip == moved.public_ipv4

    @check("release")
    async def test_a_remembered_subnet_that_was_leased_anew_is_not_taken_over(self, place: Any) -> None:
        async with self.store(place) as store:
            old = await store.acquire(Request(ONE, host(1)))
            await store.release(old.subnets[0])
            new = await store.acquire(Request(ONE, host(2)))
            back = host(1, remembered_key=old.key, remembered_created=old.created)
            assert await store.previous(back) is None
            with pytest.raises(OutOfSubnets):
                await store.acquire(Request(ONE, back))
            assert await entries(store) == Standing(new)

    @check()
    async def test_hosts_that_announce_no_address_do_not_find_each_others_lease(self, place: Any) -> None:
        async with self.store(place) as store:
            first = host(1, public_ipv4=IPv4Address("0.0.0.0"), public_ipv6=None)
            second = host(2, public_ipv4=IPv4Address("0.0.0.0"), public_ipv6=None)
            one = await store.acquire(Request(IPV4, first))
            assert await store.previous(second) is None
            assert (await store.acquire(Request(IPV4, second))).subnets != one.subnets

    @check()
    async def test_a_lease_that_does_not_fit_the_configuration_is_given_up_for_one_that_does(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, host(1)))
            other = net_conf(Network="10.6.0.0/16")
            lease = await store.acquire(Request(other, host(1)))
            assert lease.subnets[0].subnet_of(IPv4Network("10.6.0.0/16"))  # type: ignore[arg-type]
            assert await entries(store) == Standing(lease)

    @check()
    async def test_a_dry_run_writes_nothing(self, place: Any) -> None:
        before = await self.everything(place)
        async with self.store(place, dry_run=True) as store:
            lease = await store.acquire(Request(IPV4, host(1), dry_run=True))
            assert lease.revision == 0
            assert await store.previous(host(1)) is None
            async with watching(store, self.patience) as watcher:
                assert watcher.view == {}
        assert await self.everything(place) == before

    @check()
    async def test_a_dry_run_of_a_host_that_has_a_lease_names_it_and_writes_nothing(self, place: Any) -> None:
        async with self.store(place) as store:
            lease = await store.acquire(Request(IPV4, host(1)))
        before = await self.everything(place)
        async with self.store(place, dry_run=True) as store:
            for _ in range(10):
                again = await store.acquire(Request(IPV4, host(1), dry_run=True))
                assert (again.key, again.created) == (lease.key, lease.created)
        assert await self.everything(place) == before

    # --- announcing ------------------------------------------------------------------------------------------------

    @check()
    async def test_a_new_address_is_announced_under_the_same_subnet_and_heard(self, place: Any) -> None:
        async with self.store(place) as store, self.store(place) as peer:
            lease = await store.acquire(Request(DUAL, host(1)))
            async with watching(peer, self.patience) as watcher:
                for number in range(2, 12):
                    said = await store.announce(lease, host(number))
                    assert (said.key, said.created) == (lease.key, lease.created)
                    assert [e.public_ip for e in said.endpoints] == [host(number).public_ipv4, host(number).public_ipv6]
                await watcher.until(lambda w: told(w.view[lease.key]) == told(said), self.patience)

    @check("release")
    async def test_a_lost_lease_is_not_announced(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            lease = await one.acquire(Request(ONE, host(1)))
            await two.release(lease.subnets[0])
            with pytest.raises(LeaseLost) as free:
                await one.announce(lease, host(1))
            assert free.value.lost.holder is None
            other = await two.acquire(Request(ONE, host(2)))
            with pytest.raises(LeaseLost) as taken:
                await one.announce(lease, host(1))
            assert told(taken.value.lost.holder) == told(other)
            assert await entries(two) == Standing(other)

    # --- keeping ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "margin", [0, 0.5, 3600], ids=["at the last moment", "half a second", "longer than it lasts"]
    )
    @check("expiry")
    async def test_a_lease_that_is_kept_does_not_expire(self, place: Any, margin: float) -> None:
        async with self.store(place, lease_ttl=self.shortest_ttl) as store, self.store(place) as peer:
            lease = await store.acquire(Request(IPV4, host(1)))
            async with watching(peer, self.patience) as watcher:
                keeping = asyncio.create_task(store.keep(lease, margin))
                await watcher.until(lambda w: len(w.changes) >= 3, 3 * (self.shortest_ttl + self.patience))
                assert {change.key for change in watcher.changes} == {lease.key}
                kept = watcher.view[lease.key]
                assert isinstance(kept, Lease)
                assert kept.created == lease.created, "it was renewed, not taken anew"
                assert not keeping.done()
                keeping.cancel()

    @check("expiry")
    async def test_a_lease_that_nobody_keeps_is_gone_for_everybody(self, place: Any) -> None:
        async with self.store(place, lease_ttl=self.shortest_ttl) as store, self.store(place) as peer:
            async with watching(peer, self.patience) as watcher:
                lease = await store.acquire(Request(ONE, host(1)))
                assert lease.expires is not None
                assert abs(lease.expires - time.time()) < self.shortest_ttl + self.patience
                await watcher.until(lambda w: lease.key in w.view, self.patience)
                await watcher.until(lambda w: lease.key not in w.view, self.shortest_ttl + self.patience)
            assert (await peer.acquire(Request(ONE, host(2)))).subnets == lease.subnets

    @check("release")
    async def test_a_released_lease_is_lost_to_its_keeper(self, place: Any) -> None:
        async with self.store(place) as store, self.store(place) as operator:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            await operator.release(lease.subnets[0])
            assert (await self.soon(keeping)).holder is None

    @check()
    async def test_a_lease_that_another_host_took_over_is_lost_to_its_keeper(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            lease = await one.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(one.keep(lease, 60))
            doubled = host(2, public_ipv4=host(1).public_ipv4)  # two hosts that announce one address
            await two.acquire(Request(IPV4, doubled))
            lost = await self.soon(keeping)
            assert lost.holder is not None
            assert (lost.holder.key, lost.holder.ipv4.data) == (lease.key, doubled.ipv4_data)

    @check()
    async def test_a_lease_is_kept_through_an_announcement_of_its_own_host(self, place: Any) -> None:
        async with self.store(place) as store, self.store(place) as peer, watching(peer, self.patience) as watcher:
            lease = await store.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(store.keep(lease, 60))
            for number in range(2, 12):
                lease = await store.announce(lease, host(number))
            other = await peer.acquire(Request(IPV4, host(20)))
            await watcher.until(lambda w: other.key in w.view, self.patience)
            assert not keeping.done()
            keeping.cancel()

    # --- releasing and reserving -----------------------------------------------------------------------------------

    @check("release")
    async def test_a_released_subnet_is_free_again(self, place: Any) -> None:
        async with self.store(place) as store:
            for number in range(1, 11):
                lease = await store.acquire(Request(ONE, host(number)))
                await store.release(lease.subnets[0])
            assert await entries(store) == {}

    @check("release")
    async def test_releasing_what_nobody_holds_is_refused_by_name(self, place: Any) -> None:
        async with self.store(place) as store:
            for _ in range(10):
                with pytest.raises(NoSuchLease, match=r"10\.5\.3\.0/24"):
                    await store.release(IPv4Network("10.5.3.0/24"))

    @check("reserve")
    async def test_a_reservation_is_found_by_its_owner_and_stays_one(self, place: Any) -> None:
        async with self.store(place) as operator, self.store(place, lease_ttl=self.shortest_ttl) as owner:
            reserved = [await operator.reserve(reservation()) for _ in range(10)]
            assert len({(lease.key, lease.created, lease.expires) for lease in reserved}) == 1
            for _ in range(10):
                lease = await owner.acquire(Request(IPV4, host(1)))
                assert (lease.key, lease.expires) == ("10.5.50.0-24", None)
            keeping = asyncio.create_task(owner.keep(lease, 3600))
            lease = await owner.announce(lease, host(1, ipv4_data=b'{"VNI":2}'))
            await asyncio.sleep(2 * self.shortest_ttl)
            assert not keeping.done()
            keeping.cancel()
            assert await entries(operator) == Standing(lease)
            assert lease.expires is None

    @check("reserve")
    async def test_a_lease_in_use_becomes_a_reservation_and_keeps_what_it_says(self, place: Any) -> None:
        async with self.store(place) as operator, self.store(place) as owner:
            lease = await owner.acquire(Request(IPV4, host(1, previous_subnets=(IPv4Network("10.5.50.0/24"),))))
            keeping = asyncio.create_task(owner.keep(lease, 3600))
            kept = await operator.reserve(reservation())
            assert (kept.key, kept.created, kept.expires, kept.ipv4) == (lease.key, lease.created, None, lease.ipv4)
            again = await owner.announce(lease, host(1, ipv4_data=b"{}"))
            assert again.expires is None
            assert not keeping.done()
            keeping.cancel()

    @check("reserve")
    async def test_what_is_reserved_or_held_for_one_host_goes_to_no_other(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.reserve(reservation(subnet="10.5.7.0/24"))
            with pytest.raises(OutOfSubnets):
                await store.acquire(Request(ONE, host(2)))
            with pytest.raises(FlannelError, match=r"192\.0\.2\.1"):
                await store.reserve(reservation(number=3, subnet="10.5.7.0/24"))

    # --- watching --------------------------------------------------------------------------------------------------

    @check("release")
    async def test_a_watcher_hears_a_snapshot_and_then_every_change(self, place: Any) -> None:
        async with self.store(place) as store, self.store(place) as peer:
            first = await store.acquire(Request(IPV4, host(1)))
            async with watching(peer, self.patience) as watcher:
                assert watcher.view == Standing(first)
                second = await store.acquire(Request(IPV4, host(2)))
                await watcher.until(lambda w: w.view == Standing(first, second), self.patience)
                first = await store.announce(first, host(1, ipv4_data=b'{"VNI":3}'))
                await watcher.until(lambda w: told(w.view[first.key]) == told(first), self.patience)
                await store.release(second.subnets[0])
                await watcher.until(lambda w: w.view == Standing(first), self.patience)
                assert len(watcher.snapshots) == 1
                assert [c.revision for c in watcher.changes] == sorted({c.revision for c in watcher.changes})

    @check()
    async def test_a_host_hears_of_its_own_lease(self, place: Any) -> None:
        async with self.store(place) as store, watching(store, self.patience) as watcher:
            lease = await store.acquire(Request(IPV4, host(1)))
            await watcher.until(lambda w: w.view == Standing(lease), self.patience)

    @check()
    async def test_a_watcher_that_missed_something_gets_a_snapshot(self, place: Any) -> None:
        async with self.store(place) as store, self.store(place) as peer:
            lease = await store.acquire(Request(IPV4, host(1)))
            async with watching(peer, self.patience) as watcher:
                await self.write_unheard(place, "10.5.99.0-24", GO_LEASE)
                await watcher.until(lambda w: len(w.snapshots) == 2, 3 * self.patience)
                assert set(watcher.view) == {lease.key, "10.5.99.0-24"}
                assert len({snapshot.cluster for snapshot in watcher.snapshots}) == 1
                assert watcher.snapshots[0].revision < watcher.snapshots[1].revision
                later = await store.acquire(Request(IPV4, host(2)))
                await watcher.until(lambda w: told(w.view.get(later.key)) == told(later), self.patience)
                assert len(watcher.snapshots) == 2

    @check()
    async def test_a_quiet_watch_says_that_it_is_alive(self, place: Any) -> None:
        async with self.store(place) as store, watching(store, self.patience) as watcher:
            await watcher.until(lambda w: any(isinstance(event, Alive) for event in w.events), 10)

    @check()
    async def test_an_entry_of_a_go_node_is_a_lease(self, place: Any) -> None:
        async with self.store(place) as store, watching(store, self.patience) as watcher:
            await store.acquire(Request(IPV4, host(1)))
            await self.write_raw(place, "10.5.99.0-24", GO_LEASE)
            await watcher.until(lambda w: "10.5.99.0-24" in w.view, self.patience)
            lease = watcher.view["10.5.99.0-24"]
            assert isinstance(lease, Lease)
            assert lease.ipv4 == Endpoint(IPv4Network("10.5.99.0/24"), IPv4Address("192.0.2.99"), b'{"VNI":1}')

    @pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
    @check()
    async def test_a_malformed_entry_is_named_and_harms_nobody(self, place: Any, value: bytes) -> None:
        async with self.store(place) as store, self.store(place) as peer:
            lease = await store.acquire(Request(IPV4, host(1)))
            async with watching(peer, self.patience) as watcher:
                await self.write_raw(place, "10.5.7.0-24", value)
                await watcher.until(lambda w: isinstance(w.view.get("10.5.7.0-24"), Malformed), self.patience)
                assert told(watcher.view[lease.key]) == told(lease)
                with pytest.raises(OutOfSubnets):
                    await store.acquire(Request(ONE, host(2)))
                await self.write_raw(place, "10.5.7.0-24", GO_LEASE)
                await watcher.until(lambda w: isinstance(w.view["10.5.7.0-24"], Lease), self.patience)

    @check()
    async def test_an_entry_whose_key_names_no_subnet_harms_nobody(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, host(1)))
            await self.write_raw(place, "what is this", GO_LEASE)
            lease = await store.acquire(Request(IPV4, host(1)))
            found = await entries(store)
            assert isinstance(found.pop("what is this"), Malformed)
            assert found == Standing(lease)

    # --- net-conf.json ---------------------------------------------------------------------------------------------

    @check()
    async def test_the_configuration_is_waited_for_and_followed(self, place: Any) -> None:
        async with self.store(place) as store:
            texts = aiter(store.config())
            nothing = await self.soon(anext(texts))
            assert nothing.text is None
            for text in (b'{"Network":"10.5.0.0/16"}', b"{", b'{"Network":"10.6.0.0/16"}'):
                heard = asyncio.ensure_future(anext(texts))
                for _ in range(10):
                    await self.write_config(place, text)
                assert (await self.soon(heard)).text == text
                assert heard.result().source == nothing.source

    @check()
    async def test_a_configuration_that_stands_there_is_read_at_once(self, place: Any) -> None:
        await self.write_config(place, b'{"Network":"10.5.0.0/16"}')
        async with self.store(place) as store:
            assert (await self.soon(anext(aiter(store.config())))).text == b'{"Network":"10.5.0.0/16"}'

    # --- the end ---------------------------------------------------------------------------------------------------

    @check()
    async def test_a_store_is_closed_ten_times_and_answers_no_more(self, place: Any) -> None:
        async with self.store(place) as store:
            lease = await store.acquire(Request(IPV4, host(1)))
            for _ in range(10):
                await store.close()
            for call in (store.previous(host(1)), store.acquire(Request(IPV4, host(1))), store.keep(lease, 60)):
                with pytest.raises(StoreUnavailable):
                    await self.soon(call)
        async with self.store(place) as again:
            assert await entries(again) == Standing(lease), "the lease stays"

    @check("list")
    async def test_the_list_is_the_snapshot(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, host(1)))
            await self.write_raw(place, "10.5.7.0-24", b"")
            first = await anext(aiter(store.leases()))
            assert isinstance(first, Snapshot)
            for _ in range(10):
                listed = await store.list()
                assert (listed.revision, listed.cluster) == (first.revision, first.cluster)
                assert by_key(listed) == Standing(*by_key(first).values())

    async def soon(self, awaitable: Awaitable[Any]) -> Any:
        """What is awaited, within ``patience``."""
        async with asyncio.timeout(self.patience):
            return await awaitable
