"""What the kernel makes of ipip and wireguard links: written, read back, changed in place."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import msgspec
import pytest

from flannel_core.lab.network import in_a_throw_away_namespace, ip_batch
from flannel_core.netlink import tables
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.objects import Ipip, Link, Wireguard
from flannel_core.target import Failure, Put, Scope

IPIP = Link("flannel.ipip", Ipip("192.0.2.1"), 1480)
FOU = Link("flannel.ipip", Ipip("192.0.2.1", ttl=64, pmtudisc=True, fou_port=8285), 1472)
WIREGUARD = Link("flannel-wg", Wireguard(), 1420)


@pytest.fixture
def on_a_host() -> Callable[[Callable[[], None]], None]:
    """Calls something in a namespace with two addresses on eth0."""

    def call(work: Callable[[], None]) -> None:
        def there() -> None:
            ip_batch(["link add eth0 type dummy", "link set eth0 up", "addr add 192.0.2.1/24 dev eth0"])
            ip_batch(["addr add 192.0.2.7/24 dev eth0"])
            work()

        in_a_throw_away_namespace(there)

    return call


def write(wanted: Link, previous: Link | None = None) -> list[Failure]:
    async def written() -> list[Failure]:
        target = KernelTarget()
        await target.open()
        try:
            return list(await target.write([Put(wanted, previous)], []))
        finally:
            await target.close()

    return asyncio.run(written())


def read(name: str) -> Link:
    async def found() -> list[object]:
        return [actual.object for actual in await KernelTarget().read(Scope(devices=frozenset({name})))]

    (link,) = [item for item in asyncio.run(found()) if isinstance(item, Link)]
    return link


def index(name: str) -> int:
    return next(row.index for row in tables.read_links() if row.name == name)


@pytest.mark.parametrize("link", [IPIP, FOU, WIREGUARD], ids=Link.describe)
def test_what_is_written_is_what_is_read(on_a_host, link):
    def check():
        subprocess.run(["modprobe", "fou"], check=True)
        assert write(link) == []
        found = read(link.name)
        assert link.satisfied_by(found)
        assert found.info == link.info
        assert found.mac is None

    on_a_host(check)


@pytest.mark.parametrize(
    "changes",
    [
        {"mtu": 1400},
        {"info": Ipip("192.0.2.7")},
        {"info": Ipip("192.0.2.1", ttl=64, pmtudisc=True)},
        {"info": Ipip("192.0.2.1", pmtudisc=True)},
        {"info": FOU.info, "mtu": 1472},
        {"info": Ipip("192.0.2.7", ttl=64, pmtudisc=True, fou_port=9999), "mtu": 1300},
    ],
    ids=str,
)
def test_an_ipip_device_is_changed_in_place_and_back(on_a_host, changes):
    def check():
        subprocess.run(["modprobe", "fou"], check=True)
        assert write(IPIP) == []
        before = index(IPIP.name)
        changed = msgspec.structs.replace(IPIP, **changes)
        for wanted in (changed, IPIP):
            assert write(wanted, read(IPIP.name)) == []
            assert wanted.satisfied_by(read(IPIP.name))
        assert index(IPIP.name) == before

    on_a_host(check)


def test_a_device_as_go_flannel_makes_it_is_the_wanted_one(on_a_host):
    def check():
        ip_batch(["link add flannel.ipip type ipip local 192.0.2.1 remote any ttl inherit nopmtudisc"])
        ip_batch(["link set flannel.ipip mtu 1480 up"])
        assert IPIP.satisfied_by(read("flannel.ipip"))

    on_a_host(check)


def test_a_point_to_point_tunnel_of_our_name_is_made_again(on_a_host):
    def check():
        ip_batch(["link add flannel.ipip type ipip local 192.0.2.1 remote 192.0.2.9"])
        found = read("flannel.ipip")
        assert IPIP.must_be_remade(found)
        assert write(IPIP, found) == []
        assert IPIP.satisfied_by(read("flannel.ipip"))

    on_a_host(check)


def test_another_tunnel_from_the_same_address_is_named(on_a_host):
    def check():
        ip_batch(["link add other type ipip local 192.0.2.1 remote any"])
        (failure,) = write(IPIP)
        assert failure.foreign
        assert "the device other is an ipip tunnel from the same address already" in failure.reason
        ip_batch(["link del other"])
        assert write(IPIP) == []

    on_a_host(check)


def test_without_the_module_fou_the_reason_names_it(on_a_host):
    def check():
        subprocess.run(["modprobe", "--remove", "fou"], check=True)
        (failure,) = write(FOU)
        assert "`modprobe fou`" in failure.reason

    on_a_host(check)
