"""What a store does for the host that asks: a subnet of its own, announced, kept, released, reserved."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from flannel_core.allocation import fits
from flannel_core.errors import FlannelError
from flannel_core.lease import Lease
from flannel_core.netconf import NetworkConfig
from flannel_core.store import LeaseLost, NoSuchLease, OutOfSubnets, Request

from .store_kit import DUAL, IPV4, IPV6, ONE, TWENTY, StoreKit, check, entries, host, net_conf, reservation
from .watching import Standing, told, watching


class OwnLeaseChecks(StoreKit):
    """The checks of ``previous``, ``acquire``, ``announce``, ``keep``, ``release``, ``give_up`` and ``reserve``."""

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

    @check("allocation")
    async def test_hosts_get_subnets_of_their_own(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            first = await one.acquire(Request(IPV4, host(1)))
            second = await two.acquire(Request(IPV4, host(2)))
            assert set(first.subnets).isdisjoint(second.subnets)
            assert first.created < second.created, "created orders leases by age"

    @check("allocation")
    async def test_twenty_hosts_racing_for_twenty_subnets_all_get_one(self, place: Any) -> None:
        async def race(number: int) -> Lease:
            async with self.store(place) as store:
                return await store.acquire(Request(TWENTY, host(number)))

        leases = await asyncio.gather(*(race(number) for number in range(1, 21)))
        assert len({lease.subnets for lease in leases}) == 20
        async with self.store(place) as store:
            with pytest.raises(OutOfSubnets, match="20"):
                await store.acquire(Request(TWENTY, host(21)))

    @check("allocation")
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

    @check("allocation")
    async def test_a_host_does_not_find_the_lease_of_another(self, place: Any) -> None:
        async with self.store(place) as store:
            await store.acquire(Request(IPV4, host(1)))
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

    @check("allocation")
    async def test_hosts_that_announce_no_address_do_not_find_each_others_lease(self, place: Any) -> None:
        async with self.store(place) as store:
            first = host(1, public_ipv4=IPv4Address("0.0.0.0"), public_ipv6=None)
            second = host(2, public_ipv4=IPv4Address("0.0.0.0"), public_ipv6=None)
            one = await store.acquire(Request(IPV4, first))
            assert await store.previous(second) is None
            assert (await store.acquire(Request(IPV4, second))).subnets != one.subnets

    @check("expiry")  # where nothing expires, every lease is a reservation, and those stay
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

    @check("allocation")
    async def test_a_lease_that_another_host_took_over_is_lost_to_its_keeper(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            lease = await one.acquire(Request(IPV4, host(1)))
            keeping = asyncio.create_task(one.keep(lease, 60))
            doubled = host(2, public_ipv4=host(1).public_ipv4)  # two hosts that announce one address
            await two.acquire(Request(IPV4, doubled))
            lost = await self.soon(keeping)
            assert lost.holder is not None
            assert (lost.holder.key, lost.holder.ipv4.data) == (lease.key, doubled.ipv4_data)

    @check("allocation")
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

    @check("release")
    async def test_a_host_gives_its_lease_up_once(self, place: Any) -> None:
        async with self.store(place) as store:
            for config in (IPV4, DUAL, IPV6):
                lease = await store.acquire(Request(config, host(1)))
                assert await store.give_up(lease)
                assert await entries(store) == {}
                assert not await store.give_up(lease)

    @check("release")
    async def test_what_another_host_got_meanwhile_is_not_given_up(self, place: Any) -> None:
        async with self.store(place) as one, self.store(place) as two:
            lease = await one.acquire(Request(ONE, host(1)))
            await two.release(lease.subnets[0])
            taken = await two.acquire(Request(ONE, host(2)))
            assert taken.key == lease.key
            assert not await one.give_up(lease)
            assert await entries(two) == Standing(taken)

    @check("release", "reserve")
    async def test_what_became_a_reservation_is_not_given_up_by_its_host(self, place: Any) -> None:
        async with self.store(place) as operator, self.store(place) as owner:
            lease = await owner.acquire(Request(IPV4, host(1, previous_subnets=(IPv4Network("10.5.50.0/24"),))))
            kept = await operator.reserve(reservation())
            assert not await owner.give_up(lease)
            assert await entries(operator) == Standing(kept)
            assert await operator.give_up(kept)

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
