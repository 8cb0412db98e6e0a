"""Links of other kinds than vxlan: ipip and wireguard against pyroute2, TUN devices on a real kernel.

What the kernel makes of ipip and wireguard is in tests/vm: not every kernel has them.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from flannel_core.netlink import links, tables, tun
from flannel_core.netlink.kernel import KernelTarget
from flannel_core.netlink.link_kinds import IFF_TUN
from flannel_core.netlink.message import Message, Request, messages, pack
from flannel_core.objects import Ipip, Link, LinkInfo, OtherLink, Tun, Wireguard
from flannel_core.target import Failure, Put, Scope

addresses = st.integers(0x01000000, 0xDFFFFFFF).map(lambda value: str(IPv4Address(value)))
ipip = st.builds(
    Ipip,
    local=addresses,
    ttl=st.integers(0, 255),
    pmtudisc=st.booleans(),
    fou_port=st.none() | st.integers(1, 65535),
)


def as_pyroute2_reads_it(request: Request) -> dict[str, Any]:
    parsed = ifinfmsg(pack(request, 1, 5))
    parsed.decode()
    return dict(parsed["attrs"])


def info_data(attributes: dict[str, Any]) -> dict[str, Any]:
    return dict(attributes["IFLA_LINKINFO"].get_attr("IFLA_INFO_DATA")["attrs"])


def packed_by_pyroute2(kind: str, data: list[tuple[str, Any]]) -> Message:
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data:
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    packed = ifinfmsg()
    packed["index"] = 7
    packed["attrs"] = [
        ("IFLA_IFNAME", "flannel0"),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    packed.encode()
    (message,) = messages(bytes(packed.data))
    return message


def decoded(message: Message) -> LinkInfo:
    return links.decode(message, {}).link.info


def no_index(name: str) -> int:
    raise AssertionError(f"nobody needs the index of {name}")


@given(ipip)
def test_pyroute2_reads_an_ipip_device_that_we_pack(info: Ipip) -> None:
    attributes = as_pyroute2_reads_it(links.create(Link("flannel.ipip", info, 1480), no_index))
    assert (attributes["IFLA_IFNAME"], attributes["IFLA_MTU"]) == ("flannel.ipip", 1480)
    assert attributes["IFLA_LINKINFO"].get_attr("IFLA_INFO_KIND") == "ipip"
    assert info_data(attributes) == {
        "IFLA_IPIP_LOCAL": info.local,
        "IFLA_IPIP_TTL": info.ttl,
        "IFLA_IPIP_PMTUDISC": info.pmtudisc,
        "IFLA_IPIP_ENCAP_TYPE": 0 if info.fou_port is None else 1,
        "IFLA_IPIP_ENCAP_FLAGS": 0 if info.fou_port is None else 1,
        "IFLA_IPIP_ENCAP_SPORT": info.fou_port or 0,
        "IFLA_IPIP_ENCAP_DPORT": info.fou_port or 0,
    }


def ipip_attributes(info: Ipip, **changes: Any) -> list[tuple[str, Any]]:
    attributes = {
        "IFLA_IPIP_LINK": 0,
        "IFLA_IPIP_LOCAL": info.local,
        "IFLA_IPIP_REMOTE": "0.0.0.0",
        "IFLA_IPIP_TTL": info.ttl,
        "IFLA_IPIP_PMTUDISC": int(info.pmtudisc),
        "IFLA_IPIP_ENCAP_TYPE": 0 if info.fou_port is None else 1,
        "IFLA_IPIP_ENCAP_FLAGS": 0 if info.fou_port is None else 1,
        "IFLA_IPIP_ENCAP_SPORT": info.fou_port or 0,
        "IFLA_IPIP_ENCAP_DPORT": info.fou_port or 0,
    }
    return [*(attributes | changes).items()]


@given(ipip)
def test_we_read_an_ipip_device_that_pyroute2_packs(info: Ipip) -> None:
    assert decoded(packed_by_pyroute2("ipip", ipip_attributes(info))) == info


@pytest.mark.parametrize(
    "changes",
    [
        {"IFLA_IPIP_REMOTE": "192.0.2.9"},
        {"IFLA_IPIP_ENCAP_TYPE": 2},
        {"IFLA_IPIP_ENCAP_FLAGS": 0},
        {"IFLA_IPIP_ENCAP_SPORT": 0},
        {"IFLA_IPIP_ENCAP_DPORT": 9999},
        {"IFLA_IPIP_LOCAL": "192.0.2.2"},
        {"IFLA_IPIP_TTL": 63},
        {"IFLA_IPIP_PMTUDISC": 0},
    ],
    ids=str,
)
def test_an_ipip_device_that_differs_in_one_thing_is_not_the_wanted_one(changes: dict[str, Any]) -> None:
    wanted = Ipip("192.0.2.1", ttl=64, pmtudisc=True, fou_port=8285)
    found = decoded(packed_by_pyroute2("ipip", ipip_attributes(wanted, **changes)))
    assert not wanted.satisfied_by(found)
    assert wanted.must_be_remade(found) == ("IFLA_IPIP_REMOTE" in changes)


def test_an_ipip_device_without_an_encapsulation_is_not_one_with_an_unknown_one() -> None:
    plain, odd = Ipip("192.0.2.1"), Ipip("192.0.2.1", fou_port=0)
    assert not plain.satisfied_by(odd)
    assert "fou" not in plain.describe()


def test_a_change_carries_all_of_an_ipip_device_and_no_change_nothing() -> None:
    have, want = (Link("flannel.ipip", Ipip(local), 1480) for local in ("192.0.2.1", "192.0.2.7"))
    (request,) = links.change(want, have, 7, no_index)
    assert info_data(as_pyroute2_reads_it(request)) == info_data(
        as_pyroute2_reads_it(links.create(want, no_index)),
    )
    assert links.change(want, want, 7, no_index) == []


def test_a_wireguard_device_has_no_attributes_of_its_own() -> None:
    attributes = as_pyroute2_reads_it(links.create(Link("flannel-wg", Wireguard(), 1420), no_index))
    assert attributes["IFLA_LINKINFO"].get_attr("IFLA_INFO_KIND") == "wireguard"
    assert decoded(packed_by_pyroute2("wireguard", [])) == Wireguard()


@pytest.mark.parametrize(
    ("data", "info"),
    [
        ([("IFLA_TUN_TYPE", 1), ("IFLA_TUN_OWNER", 65534)], Tun(65534)),
        ([("IFLA_TUN_TYPE", 1)], Tun()),
        ([("IFLA_TUN_TYPE", 2)], OtherLink("tap")),
    ],
    ids=str,
)
def test_a_tun_device_has_an_owner_and_a_tap_device_is_not_ours(data: list[tuple[str, Any]], info: LinkInfo) -> None:
    assert decoded(packed_by_pyroute2("tun", data)) == info


# --- TUN devices in the kernel --------------------------------------------------------------------------------------

SCOPE = Scope(devices=frozenset({"flannel0"}))
DEVICE = Link("flannel0", Tun(owner=65534), 1472, txqueuelen=5000)


@asynccontextmanager
async def opened() -> AsyncIterator[KernelTarget]:
    target = KernelTarget()
    await target.open()
    try:
        yield target
    finally:
        await target.close()


def write(host: Any, *puts: Put, removes: tuple[Link, ...] = ()) -> list[Failure]:
    async def written() -> list[Failure]:
        async with opened() as target:
            return list(await target.write(puts, removes))

    return host.run(written())


def read(host: Any) -> list[Any]:
    async def found() -> list[Any]:
        async with opened() as target:
            return [actual.object for actual in await target.read(SCOPE)]

    return host.run(found())


def attach(host: Any) -> int:
    """The descriptor of a process that holds flannel0."""

    def attached() -> int:
        descriptor = os.open(tun.DEVICE, os.O_RDWR)
        fcntl.ioctl(descriptor, tun.TUNSETIFF, struct.pack("16sH22x", b"flannel0", IFF_TUN | tun.IFF_NO_PI))
        return descriptor

    return host.call(attached)


def index(host: Any) -> int:
    return next(row.index for row in host.call(tables.read_links) if row.name == "flannel0")


def test_a_tun_device_is_made_with_all_it_should_have_and_stays(host: Any) -> None:
    assert write(host, Put(DEVICE)) == []
    (found,) = read(host)
    assert DEVICE.satisfied_by(found)
    assert "tun persist user 65534" in host.ip("tuntap show")
    assert write(host, Put(DEVICE, found)) == []
    assert read(host) == [found]
    assert write(host, removes=(DEVICE,)) == []
    assert read(host) == []


def test_a_tun_device_is_changed_in_place_while_a_process_holds_it(host: Any) -> None:
    write(host, Put(DEVICE))
    descriptor, before = attach(host), index(host)
    smaller = msgspec.structs.replace(DEVICE, mtu=1400)
    assert write(host, Put(smaller, *read(host))) == []
    (found,) = read(host)
    assert smaller.satisfied_by(found)
    assert index(host) == before
    os.close(descriptor)
    assert read(host) == [found]


def test_a_tun_device_of_another_owner_is_made_again(host: Any) -> None:
    write(host, Put(DEVICE))
    roots = Link("flannel0", Tun(), 1472)
    assert write(host, Put(roots, *read(host))) == []
    (found,) = read(host)
    assert found.info == Tun()


def test_a_tap_device_of_our_name_is_named_and_left_alone(host: Any) -> None:
    host.ip("tuntap add flannel0 mode tap")
    (failure,) = write(host, Put(DEVICE))
    assert failure.foreign
    assert "flannel0 exists and is of type tap" in failure.reason
    assert "tap" in host.ip("tuntap show")


def test_without_dev_net_tun_the_reason_names_it(host: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tun, "DEVICE", str(tmp_path / "tun"))
    (failure,) = write(host, Put(DEVICE))
    assert "`modprobe tun`" in failure.reason
