"""What a store says to everybody: all leases and their changes, net-conf.json, and nothing more once it is closed."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from flannel_core.lease import Endpoint, Lease, Malformed
from flannel_core.store import Alive, OutOfSubnets, Request, StoreUnavailable

from .store_kit import GO_LEASE, IPV4, MALFORMED, ONE, OUT_OF_THE_WAY, StoreKit, check, entries, first_snapshot, host
from .watching import Standing, by_key, told, watching


class AllLeasesChecks(StoreKit):
    """The checks of ``leases``, ``list``, ``config`` and ``close``."""

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
            lease = await store.acquire(Request(IPV4, OUT_OF_THE_WAY))
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
            await watcher.until(lambda w: any(isinstance(event, Alive) for event in w.events), self.quiet)

    @check()
    async def test_an_entry_of_a_go_node_is_a_lease(self, place: Any) -> None:
        async with self.store(place) as store, watching(store, self.patience) as watcher:
            await store.acquire(Request(IPV4, OUT_OF_THE_WAY))
            await self.write_raw(place, "10.5.99.0-24", GO_LEASE)
            await watcher.until(lambda w: "10.5.99.0-24" in w.view, self.patience)
            lease = watcher.view["10.5.99.0-24"]
            assert isinstance(lease, Lease)
            assert lease.ipv4 == Endpoint(IPv4Network("10.5.99.0/24"), IPv4Address("192.0.2.99"), b'{"VNI":1}')

    @pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
    @check()
    async def test_a_malformed_entry_is_named_and_harms_nobody(self, place: Any, value: bytes) -> None:
        async with self.store(place) as store, self.store(place) as peer:
            lease = await store.acquire(Request(IPV4, OUT_OF_THE_WAY))
            async with watching(peer, self.patience) as watcher:
                await self.write_raw(place, "10.5.7.0-24", value)
                await watcher.until(lambda w: isinstance(w.view.get("10.5.7.0-24"), Malformed), self.patience)
                assert told(watcher.view[lease.key]) == told(lease)
                await self.write_raw(place, "10.5.7.0-24", GO_LEASE)
                await watcher.until(lambda w: isinstance(w.view["10.5.7.0-24"], Lease), self.patience)

    @check("allocation")
    async def test_the_subnet_that_a_malformed_entry_is_named_after_goes_to_nobody(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, OUT_OF_THE_WAY))
            await self.write_raw(place, "10.5.7.0-24", b"")
            with pytest.raises(OutOfSubnets):
                await store.acquire(Request(ONE, host(2)))

    @check("allocation")
    async def test_an_entry_whose_key_names_no_subnet_harms_nobody(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, host(1)))
            await self.write_raw(place, "what is this", GO_LEASE)
            lease = await store.acquire(Request(IPV4, host(1)))
            found = await entries(store)
            assert isinstance(found.pop("what is this", None), Malformed)
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
                assert nothing.source.startswith(heard.result().source), "it says why there was none"

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
            await store.acquire(Request(IPV4, OUT_OF_THE_WAY))
            await self.write_raw(place, "10.5.7.0-24", b"")
            first = await first_snapshot(store)
            for _ in range(10):
                listed = await store.list()
                assert (listed.revision, listed.cluster) == (first.revision, first.cluster)
                assert by_key(listed) == Standing(*by_key(first).values())
