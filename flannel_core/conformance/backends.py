"""What every backend promises, as tests. A plugin's own tests are a subclass of a few lines::

    class TestVxlan(BackendConformance):
        backend = VxlanBackend
        config = {"Type": "vxlan"}

        def data(self, number):
            return VxlanData(1, f"02:00:00:00:00:{number:02x}")

        untrusted = (b'{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}',)

What a backend cannot do, as the class says (``families``, ``forwards``), is not asked of it, see ``applying.py``.

These checks are pure: no root, no kernel. Those of ``conformance/kernel.py`` apply the same plans to the kernel of
a network namespace of their own, and let the pods of two hosts ping each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from flannel_core.admission import Admission
from flannel_core.backend import Announcement, Backend, Node, Unreachable
from flannel_core.backend_options import decode_options
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, Endpoint, Family, Lease
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.objects import Link, Object

from .applying import Conformance, needs

INTERFACE = "eth0"
SOURCE = "net-conf.json"


class BackendConformance(Conformance):
    """Subclass it, name it ``Test...`` and set what is marked below."""

    backend: ClassVar[type[Backend[Any, Any]]]
    """The class under test."""
    config: ClassVar[Mapping[str, Any]]
    """The value of "Backend" in net-conf.json."""
    families: ClassVar[tuple[Family, ...]] = FAMILIES
    """What the backend can carry."""
    forwards: ClassVar[bool] = True
    """False: it leaves the packets to somebody else."""
    untrusted: ClassVar[Sequence[bytes]] = ()
    """What a peer may not announce, as the raw JSON of BackendData: no MAC, a zero MAC, a key of the wrong length."""

    @classmethod
    def features(cls) -> frozenset[str] | None:
        if not hasattr(cls, "backend"):
            return None
        said = {
            "forwarding": cls.forwards,
            "data": cls.backend.Data is not None,
            "untrusted_data": bool(cls.untrusted),
            "identities": cls.backend.identities is not Backend.identities,
        }
        return frozenset({name for name, true in said.items() if true} | {f"IPv{family}" for family in cls.families})

    def data(self, number: int) -> Any:
        """The data that peer ``number`` (1 to 200) announces, an instance of the backend's Data; None: it has none.
        Every number has other keys and MACs."""
        return None

    # --- what the checks are made of -----------------------------------------------------------------------------

    def network_config(self) -> NetworkConfig:
        text = {
            "Network": "10.5.0.0/16",
            "IPv6Network": "fd00:5::/48",
            "EnableIPv4": 4 in self.families,
            "EnableIPv6": 6 in self.families,
            "Backend": self.config,
        }
        return parse_config(msgspec.json.encode(text), SOURCE)

    def make_backend(self, directory: Path) -> Backend[Any, Any]:
        return self.backend(decode_options(self.network_config(), self.backend, SOURCE), directory)

    def host(self, number: int = 200) -> Host:
        ipv4, ipv6 = (self._public(family, number) for family in FAMILIES)
        return Host(
            interface=INTERFACE,
            index=2,
            mtu=1500,
            mac="02:00:5e:00:00:01",
            ipv4=ipv4,
            ipv6=ipv6,
            public_ipv4=ipv4,
            public_ipv6=ipv6,
            connected=((ip_network("198.51.100.0/24"), INTERFACE), (ip_network("2001:db8:5::/64"), INTERFACE)),
        )

    def _public(self, family: Family, number: int) -> Any:
        if family not in self.families:
            return None
        return ip_address(f"198.51.100.{number}" if family == 4 else f"2001:db8:5::{number:x}")

    def lease(self, number: int, *, raw: bool = False) -> Lease:
        """Peer ``number``'s, as admission passes it on; ``raw``: as a store yields it."""
        data = self.data(number)
        if raw and data is not None:
            data = msgspec.json.encode(data)
        ipv4 = (
            Endpoint(ip_network(f"10.5.{number}.0/24"), self._public(4, number), data) if 4 in self.families else None
        )
        ipv6 = (
            Endpoint(ip_network(f"fd00:5:0:{number:x}::/64"), self._public(6, number), data)
            if 6 in self.families
            else None
        )
        return Lease(f"peer-{number}", self.backend.published_type, ipv4, ipv6, created=number, revision=number)

    def announcement(self, backend: Backend[Any, Any]) -> Announcement:
        return asyncio.run(backend.prepare(self.host(), None, dry_run=True))

    def node(self, backend: Backend[Any, Any]) -> Node:
        return self.node_announcing(self.announcement(backend))

    def node_announcing(self, announcement: Announcement) -> Node:
        own = self.lease(200)
        own = msgspec.structs.replace(
            own,
            ipv4=own.ipv4 and msgspec.structs.replace(own.ipv4, data=announcement.ipv4_data),
            ipv6=own.ipv6 and msgspec.structs.replace(own.ipv6, data=announcement.ipv6_data),
        )
        return Node(self.network_config(), self.host(), announcement, own)

    def plan(self, backend: Backend[Any, Any], node: Node, numbers: Sequence[int]) -> list[Object]:
        planned: list[Object] = list(backend.local(node))
        for number in numbers:
            planned += self.plan_peer(backend, node, self.lease(number))
        return planned

    def plan_peer(self, backend: Backend[Any, Any], node: Node, lease: Lease) -> list[Object]:
        """What reaches a peer that nothing is wrong with."""
        planned: list[Object] = []
        for item in backend.peer(node, lease):
            assert not isinstance(item, Unreachable), f"{lease.key}: {item.reason}"
            planned.append(item)
        return planned

    def admitted(self, backend: Backend[Any, Any], node: Node, *leases: Lease) -> list[str]:
        """The keys of those that are trusted. Fails if one of them cannot be planned for."""
        admission = Admission(node.config, backend, node.lease)
        admission.replace(leases, ())
        for lease in admission.admitted.values():
            try:
                list(backend.peer(node, lease))
            except Exception as error:
                raise AssertionError(f"peer() raises {error!r} for {lease}") from error
        return list(admission.admitted)

    def announcing(self, lease: Lease, raw: bytes) -> Lease:
        """``lease`` with other data, as a store yields it."""
        return msgspec.structs.replace(
            lease,
            ipv4=lease.ipv4 and msgspec.structs.replace(lease.ipv4, data=raw),
            ipv6=lease.ipv6 and msgspec.structs.replace(lease.ipv6, data=raw),
        )

    # --- the promises --------------------------------------------------------------------------------------------

    def test_planning_twice_gives_the_same_plan(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        node = self.node(backend)
        assert self.plan(backend, node, (1, 2)) == self.plan(backend, node, (1, 2))

    def test_a_second_instance_plans_the_same(self, tmp_path: Path) -> None:
        node = self.node(self.make_backend(tmp_path))
        assert self.plan(self.make_backend(tmp_path), node, (1,)) == self.plan(self.make_backend(tmp_path), node, (1,))

    def test_what_needs_no_subnet_stays_wanted_once_there_is_one(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        node = self.node(backend)
        early = list(backend.local(msgspec.structs.replace(node, lease=None)))
        late = {item.identity: item for item in backend.local(node)}
        for item in early:
            assert late.get(item.identity) == item

    @needs("forwarding")
    def test_something_reaches_each_family_of_a_peer(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        node, lease = self.node(backend), self.lease(1)
        for one in (msgspec.structs.replace(lease, ipv6=None), msgspec.structs.replace(lease, ipv4=None)):
            assert self.plan_peer(backend, node, one) or not one.endpoints

    def test_no_two_objects_of_a_plan_share_an_identity(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        planned = self.plan(backend, self.node(backend), range(1, 51))
        seen: dict[object, Object] = {}
        for item in planned:
            assert seen.setdefault(item.identity, item) == item, f"two states of {item.identity}"

    def test_every_device_is_the_external_one_or_made_here(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        planned = self.plan(backend, self.node(backend), (1, 2))
        known = {INTERFACE, None} | {item.name for item in planned if isinstance(item, Link)}
        for item in planned:
            assert item.on_device in known, f"{item.describe()} lies on a device that nobody makes"

    def test_preparing_again_announces_the_same(self, tmp_path: Path) -> None:
        """Once the devices that the first announcement led to exist."""
        backend = self.make_backend(tmp_path)
        first = self.announcement(backend)
        node = Node(self.network_config(), self.host(), first)
        links = {item.name: item for item in backend.local(node) if isinstance(item, Link)}
        host = msgspec.structs.replace(self.host(), links=links)
        for _ in range(10):
            assert asyncio.run(backend.prepare(host, None, dry_run=False)) == first

    def test_a_dry_run_makes_nothing(self, tmp_path: Path) -> None:
        asyncio.run(self.make_backend(tmp_path).prepare(self.host(), None, dry_run=True))
        assert list(tmp_path.iterdir()) == []

    @needs("data")
    def test_the_announced_data_is_what_peers_decode(self, tmp_path: Path) -> None:
        announced = self.announcement(self.make_backend(tmp_path))
        for data in (*(announced.data(family) for family in self.families), self.data(1)):
            assert msgspec.json.decode(msgspec.json.encode(data), type=self.backend.Data) == data

    def test_the_mtu_leaves_room_for_the_backends_own_headers(self, tmp_path: Path) -> None:
        assert 0 < self.announcement(self.make_backend(tmp_path)).mtu <= self.host().mtu

    @pytest.mark.parametrize("raw", [b"{", b"null", b"[]", b"3", b'"x"', b"{}", b'{"VNI":-1}', b"\xff", b"[" * 2000])
    def test_a_peer_with_malformed_data_harms_no_other(self, tmp_path: Path, raw: bytes) -> None:
        backend = self.make_backend(tmp_path)
        good, bad = self.lease(1, raw=True), self.announcing(self.lease(2), raw)
        assert good.key in self.admitted(backend, self.node(backend), good, bad)

    @needs("untrusted_data")
    def test_a_peer_with_data_that_cannot_be_trusted_is_refused(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        node = self.node(backend)
        good = self.lease(1, raw=True)
        for raw in self.untrusted:
            assert self.admitted(backend, node, good, self.announcing(self.lease(2), raw)) == [good.key], raw

    @needs("identities")
    def test_two_peers_with_one_identity_are_not_both_admitted(self, tmp_path: Path) -> None:
        backend = self.make_backend(tmp_path)
        first, second = self.lease(1, raw=True), self.lease(2, raw=True)
        assert first.endpoints
        twin = self.announcing(second, first.endpoints[0].data)
        assert self.admitted(backend, self.node(backend), first, twin) == [first.key]
