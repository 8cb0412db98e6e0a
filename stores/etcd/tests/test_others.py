"""Beside Go flannel, faulty programs and operators: their entries harm nobody, and nothing of ours harms them."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec
import pytest

from flannel_core.conformance.store_kit import reservation
from flannel_core.conformance.stores import DUAL, GO_LEASE, IPV4, IPV6, TWENTY, host
from flannel_core.conformance.watching import watching
from flannel_core.errors import FlannelError
from flannel_core.lease import Lease
from flannel_core.store import Request, Snapshot

GO = b'{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"8a:3b:c0:11:22:33"}}'


def key(prefix: str, name: str) -> bytes:
    return f"{prefix}/subnets/{name}".encode()


async def test_keys_beside_the_subnets_are_not_looked_at(agent: Any, raw: Any, prefix: str) -> None:
    raw.put(f"{prefix}/subnets".encode(), b"?")
    raw.put(f"{prefix}/subnets-old/10.5.1.0-24".encode(), GO_LEASE)
    raw.put(f"{prefix}/subnets0/10.5.2.0-24".encode(), GO_LEASE)
    async with agent() as store:
        assert await store.list() == Snapshot((), (), raw.revision(), (await store.list()).cluster)


@pytest.mark.parametrize("name", ["10.5.1.0-24/x", "config", "", "a/b/c", "10.5.1.0-99", "\x1b[31mred", "10.5.1.0-24&"])
async def test_a_foreign_key_is_named_and_harms_nobody(agent: Any, raw: Any, prefix: str, name: str) -> None:
    async with agent() as store, watching(store, 5) as watcher:
        raw.put(key(prefix, name), GO_LEASE)
        lease = await store.acquire(Request(IPV4, host(1)))
        await watcher.until(lambda w: lease.key in w.view, 5)
        assert set(watcher.view) == {name, lease.key}
        assert (await store.announce(lease, host(2))).key == lease.key
        raw.delete(key(prefix, name))
        await watcher.until(lambda w: set(w.view) == {lease.key}, 5)


async def test_a_key_that_is_not_text_is_told_escaped(agent: Any, raw: Any, prefix: str) -> None:
    raw.put(key(prefix, "") + b"\xff\x00", GO_LEASE)
    async with agent() as store:
        (entry,) = (await store.list()).malformed
    assert entry.key == "\\xff\x00"


async def test_a_go_node_and_ours_see_one_lease_each_of_the_other(agent: Any, raw: Any, prefix: str) -> None:
    async with agent() as store, watching(store, 5) as watcher:
        raw.put(key(prefix, "10.5.9.0-24"), GO % b"192.0.2.99", raw.grant())
        await watcher.until(lambda w: "10.5.9.0-24" in w.view, 5)
        lease = await store.acquire(Request(IPV4, host(1)))
        assert json.loads(raw.get(key(prefix, lease.key)).popitem()[1])["PublicIP"] == "192.0.2.1"


async def test_a_host_switched_from_go_keeps_its_subnet(agent: Any, raw: Any, prefix: str) -> None:
    raw.put(key(prefix, "10.5.9.0-24"), GO % b"192.0.2.1", raw.grant())
    async with agent() as store:
        before = await store.previous(host(1))
        assert before.ipv4.data == b'{"VNI":1,"VtepMAC":"8a:3b:c0:11:22:33"}'
        lease = await store.acquire(Request(IPV4, host(1)))
        assert (lease.key, lease.created) == (before.key, before.created)
    assert list(raw.get(key(prefix, ""))) == [key(prefix, "10.5.9.0-24")]


async def test_of_several_leases_with_our_address_the_one_that_fits_is_taken_and_the_rest_are_given_up(
    agent: Any, raw: Any, prefix: str
) -> None:
    for name in ("10.4.1.0-24", "10.5.8.0-24", "10.5.9.0-25"):
        raw.put(key(prefix, name), GO % b"192.0.2.1", raw.grant())
    async with agent() as store:
        assert (await store.acquire(Request(IPV4, host(1)))).key == "10.5.8.0-24"
    assert list(raw.get(key(prefix, ""))) == [key(prefix, "10.5.8.0-24")]


async def test_a_dual_stack_key_holds_its_ipv4_subnet_too(agent: Any, raw: Any, prefix: str) -> None:
    """Seen only when it is written: between the list and the transaction."""
    async with agent() as store:
        taken = IPv4Network("10.5.9.0/24")
        listed = store._records.all

        async def list_before_another_is_faster() -> Any:
            found = await listed()
            if not found.entries:
                raw.put(key(prefix, "10.5.9.0-24&fd00:5:0:9::-64"), GO % b"192.0.2.99", raw.grant())
            return found

        store._records.all = list_before_another_is_faster
        lease = await store.acquire(Request(IPV4, host(1, previous_subnets=(taken,))))
        assert lease.subnets != (taken,)


async def test_a_create_race_that_a_go_node_wins_takes_the_next_subnet(agent: Any, raw: Any, prefix: str) -> None:
    async with agent() as store:
        listed = store._records.all
        rivals = iter(range(5))

        async def list_before_another_is_faster() -> Any:
            found = await listed()
            if next(rivals, None) is not None:
                for number in range(1, 21):  # every subnet but those that are taken, so the choice is lost for sure
                    name = f"10.5.{number}.0-24"
                    if key(prefix, name) not in raw.get(key(prefix, "")) and number != 20:
                        raw.put(key(prefix, name), GO % f"192.0.2.{100 + number}".encode(), raw.grant())
            return found

        store._records.all = list_before_another_is_faster
        assert (await store.acquire(Request(TWENTY, host(1)))).key == "10.5.20.0-24"


@pytest.mark.parametrize("config", [TWENTY, DUAL, IPV6], ids=["IPv4", "dual stack", "IPv6"])
async def test_twenty_agents_started_at_once_hold_twenty_subnets(
    agent: Any, raw: Any, prefix: str, config: Any
) -> None:
    async def start(number: int) -> Lease:
        async with agent() as store:
            lease: Lease = await store.acquire(Request(config, host(number)))
            return lease

    leases = await asyncio.gather(*(start(number) for number in range(1, 21)))
    subnets = [subnet for lease in leases for subnet in lease.subnets]
    assert len(set(subnets)) == len(subnets)
    assert len(raw.get(key(prefix, ""))) == 20


async def test_ipv6_only_hosts_do_not_take_each_others_lease(agent: Any, raw: Any, prefix: str) -> None:
    """Each announces PublicIP 0.0.0.0; Go's second host takes the first one's lease."""
    async with agent() as one, agent() as two:
        first = await one.acquire(Request(IPV6, host(1, public_ipv4=None)))
        second = await two.acquire(Request(IPV6, host(2, public_ipv4=None)))
        assert first.subnets != second.subnets
        assert (await one.acquire(Request(IPV6, host(1, public_ipv4=None)))).key == first.key
    values = raw.get(key(prefix, "")).values()
    assert [json.loads(value)["PublicIP"] for value in values] == ["0.0.0.0", "0.0.0.0"]


async def test_a_lease_that_an_operator_makes_a_reservation_stays_one(agent: Any, raw: Any, prefix: str) -> None:
    """Go renews it into a lease of 24 hours."""
    async with agent(lease_ttl=1) as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 0.5))
        value = raw.get(key(prefix, lease.key)).popitem()[1]
        raw.put(key(prefix, lease.key), value)
        await asyncio.sleep(2)
        assert not keeping.done()
        (record,) = raw.kvs(key(prefix, lease.key))
        assert "lease" not in record
        keeping.cancel()


async def test_a_renewal_is_a_grant_and_a_put_that_watchers_hear(agent: Any, raw: Any, prefix: str) -> None:
    async with agent(lease_ttl=1) as store, agent() as peer, watching(peer, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        before = raw.kvs(key(prefix, lease.key))[0]
        renewed: list[Lease] = []
        store.on_renewal = renewed.append
        keeping = asyncio.create_task(store.keep(lease, 0.5))
        await watcher.until(lambda w: len(w.changes) >= 2, 5)
        keeping.cancel()
        after = raw.kvs(key(prefix, lease.key))[0]
        assert after["value"] == before["value"]
        assert after["lease"] != before["lease"]
        assert after["create_revision"] == before["create_revision"]
        assert renewed[-1].revision == int(after["mod_revision"])
        assert renewed[-1].expires > lease.expires


async def test_a_lease_that_was_deleted_and_made_anew_by_another_is_lost(agent: Any, raw: Any, prefix: str) -> None:
    async with agent() as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        value = raw.get(key(prefix, lease.key)).popitem()[1]
        raw.delete(key(prefix, lease.key))
        raw.put(key(prefix, lease.key), value.replace(b"192.0.2.1", b"192.0.2.77"), raw.grant())
        lost = await asyncio.wait_for(store.keep(lease, 60), 5)
        assert lost.holder.ipv4.public_ip == IPv4Address("192.0.2.77")
        assert "made anew, for 192.0.2.77" in lost.reason


async def test_a_malformed_value_under_our_own_key_is_put_right(agent: Any, raw: Any, prefix: str) -> None:
    async with agent() as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        await watcher.until(lambda w: lease.key in w.view, 5)
        raw.put(key(prefix, lease.key), b'{"PublicIP":', raw.grant())
        await watcher.until(lambda w: len(w.changes) == 3 and isinstance(w.view[lease.key], Lease), 5)
        assert not keeping.done()
        keeping.cancel()


async def test_nothing_unparsable_is_ever_written(agent: Any, raw: Any, prefix: str) -> None:
    from flannel_core.errors import FlannelError

    async with agent() as store:
        with pytest.raises(FlannelError, match="cannot be written"):
            await store.acquire(Request(IPV4, host(1, ipv4_data=b'{"VNI":')))
    assert raw.get(prefix.encode()) == {}


async def test_a_malformed_entry_is_not_reserved_over_but_can_be_released(agent: Any, raw: Any, prefix: str) -> None:
    raw.put(key(prefix, "10.5.50.0-24"), b"{")
    async with agent() as store:
        with pytest.raises(FlannelError, match=r"10\.5\.50\.0-24 cannot be reserved: .* malformed; release it first"):
            await store.reserve(reservation())
        await store.release(reservation().subnets[0])
        assert (await store.reserve(reservation())).expires is None


@pytest.mark.parametrize("reserved", [False, True], ids=["a lease", "a reservation"])
async def test_who_keeps_a_lease_answers_who_asks_for_it_and_nobody_else_does(
    agent: Any, raw: Any, prefix: str, reserved: bool
) -> None:
    async with agent() as one, agent() as two:
        lease = await one.acquire(Request(IPV4, host(1)))
        if reserved:
            lease = await one.reserve(lease)
            lease = await one.acquire(Request(IPV4, host(1)))
        (before,) = raw.kvs(f"{prefix}/subnets/".encode())
        assert not await two.contest(lease, 0.5)
        (touched,) = raw.kvs(f"{prefix}/subnets/".encode())
        assert {**before, "mod_revision": "", "version": ""} == {**touched, "mod_revision": "", "version": ""}
        asked: list[str] = []
        one.on_contest = lambda: asked.append("asked")
        keeping = asyncio.create_task(one.keep(lease, 60))
        assert await two.contest(lease, 5)
        assert "asked" in asked
        (answered,) = raw.kvs(f"{prefix}/subnets/".encode())
        assert answered["value"] == before["value"]
        assert ("lease" in answered) is not reserved
        await two.reserve(lease)
        assert await two.contest(lease, 5)
        assert not keeping.done()
        keeping.cancel()
        assert not await two.contest(msgspec.structs.replace(lease, key="10.5.99.0-24"), 0.1)
