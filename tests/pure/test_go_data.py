"""What Go flannel writes, recorded by tests/interop/record.py, read and written by us: keys and values byte for byte,
and its kernel state taken for what our backends want."""

import asyncio
import json
from ipaddress import ip_interface
from pathlib import Path

import msgspec
import pytest

from flannel_core import subnet_env
from flannel_core.backend import Node
from flannel_core.backend_options import decode_options
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, Lease
from flannel_core.lease_json import decode_lease, encode_lease, lease_key
from flannel_core.netconf import parse_config
from flannel_core.netlink import addresses, links, neighbours, routes
from flannel_core.netlink.devices import link_names
from flannel_core.netlink.message import Message
from flannel_core.netlink.ours import Ours
from flannel_core.objects import BOOT_PROTOCOL, FLANNEL_PROTOCOL, Route, Sysctl
from flannel_core.plugins import load_backend
from flannel_core.target import Scope

DATA = Path(__file__).parents[1] / "data/go-flannel"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))}
ENTRIES = [
    pytest.param(*entry, id=f"{name} {entry[0]}")
    for name, case in RECORDED.items()
    for entry in case["entries"].items()
]
HOSTS = [
    pytest.param(case, host, id=f"{name} {number}")
    for name, case in RECORDED.items()
    for number, host in enumerate(case["hosts"], 1)
]
FORWARDING = [param for param in HOSTS if param.id.startswith(("vxlan", "host-gw"))]


def test_every_backend_that_runs_here_was_recorded():
    assert {
        "vxlan-ipv4",
        "vxlan-ipv6",
        "vxlan-dual",
        "host-gw-dual",
        "alloc-dual",
        "udp",
        "extension",
    } <= RECORDED.keys()


def decode(key, value):
    lease = decode_lease(key, value.encode(), created=1, revision=1, expires=None)
    assert isinstance(lease, Lease), lease
    return lease


@pytest.mark.parametrize(("key", "value"), ENTRIES)
def test_a_lease_of_gos_comes_back_byte_for_byte(key, value):
    lease = decode(key, value)
    assert encode_lease(lease) == value.encode()
    assert lease_key(lease.ipv4 and lease.ipv4.subnet, lease.ipv6 and lease.ipv6.subnet) == key


@pytest.mark.parametrize(("case", "host"), HOSTS)
def test_a_subnet_env_of_gos_comes_back_byte_for_byte(case, host):
    written = host["subnet.env"].encode()
    assert subnet_env.render(subnet_env.parse(written)) == written


def by_type(host, kind):
    lines = (line.split() for line in host["netlink"])
    return [Message(kind, 0, 0, 0, bytes.fromhex(body)) for number, body in lines if int(number) == kind]


def planning_host(host):
    """The host as host_discovery.py would find it."""
    names = link_names(by_type(host, links.RTM_NEWLINK))
    rows = {row.name: row for row in (links.decode(m, names) for m in by_type(host, links.RTM_NEWLINK))}
    eth0 = rows["eth0"]
    own = [row for row in map(addresses.decode, by_type(host, addresses.RTM_NEWADDR)) if row.index == eth0.index]
    networks = [(ip_interface((row.address, row.prefixlen)).network, "eth0") for row in own]
    public = {row.address.version: row.address for row in own if not row.address.is_link_local}
    return Host(
        interface="eth0",
        index=eth0.index,
        mtu=eth0.mtu,
        mac=eth0.mac,
        ipv4=public.get(4),
        ipv6=public.get(6),
        public_ipv4=public.get(4),
        public_ipv6=public.get(6),
        connected=tuple(networks),
        links={name: row.link for name, row in rows.items()},
    )


def in_the_kernel(host, networks):
    """By identity, what flannel put there; of routes on eth0 those into the Network."""
    names = link_names(by_type(host, links.RTM_NEWLINK))
    devices = frozenset(name for name in names.values() if name.startswith("flannel"))
    ours = Ours(Scope(devices=devices, networks=tuple(map(str, networks)), external=frozenset({"eth0"})))
    found = [
        row.link for row in (links.decode(m, names) for m in by_type(host, links.RTM_NEWLINK)) if row.name in devices
    ]
    for message in by_type(host, addresses.RTM_NEWADDR):
        row = addresses.decode(message)
        if ours.address(row, names[row.index]):
            found.append(addresses.as_object(row, names[row.index]))
    for message in by_type(host, neighbours.RTM_NEWNEIGH):
        entry = neighbours.decode(message, names)
        if entry is not None and entry.permanent and ours.neighbour(entry):
            found.append(entry)
    for message in by_type(host, routes.RTM_NEWROUTE):
        route = routes.decode(message, names).route
        assert route.protocol != FLANNEL_PROTOCOL
        if route.protocol == BOOT_PROTOCOL and not route.destination.endswith("/0"):
            route = msgspec.structs.replace(route, protocol=FLANNEL_PROTOCOL)
            assert ours.route(route)
            found.append(route)
    return {item.identity: item for item in found}


def decoded(lease, backend):
    """As admission hands it on."""

    def endpoint(found):
        if found is None or found.data is None:
            return found
        return msgspec.structs.replace(found, data=msgspec.json.decode(found.data, type=backend.Data))

    return msgspec.structs.replace(lease, ipv4=endpoint(lease.ipv4), ipv6=endpoint(lease.ipv6))


@pytest.mark.parametrize(("case", "host"), FORWARDING)
def test_what_go_left_in_the_kernel_is_what_we_want_there(case, host):
    """But for the protocol of its routes, nothing is changed when a host goes from Go to ours."""
    config = parse_config(case["config"].encode(), "recorded")
    backend_class = load_backend(config.backend_type)
    backend = backend_class(decode_options(config, backend_class, "recorded"))
    leases = [decoded(decode(key, value), backend) for key, value in case["entries"].items()]
    this = planning_host(host)
    (own,) = (lease for lease in leases if any(e.public_ip in (this.ipv4, this.ipv6) for e in lease.endpoints))
    announcement = asyncio.run(backend.prepare(this, None, dry_run=False))
    for family in FAMILIES:
        if endpoint := own.endpoint(family):
            assert announcement.data(family) == endpoint.data
    node = Node(config, this, announcement, own)
    wanted = [
        *backend.local(node),
        *(item for lease in leases if lease is not own for item in backend.peer(node, lease)),
    ]
    wanted = [item for item in wanted if not isinstance(item, Sysctl)]
    found = in_the_kernel(host, config.networks)
    assert {item.identity for item in wanted} == found.keys()
    for item in wanted:
        assert item.satisfied_by(found[item.identity])
    assert len(case["entries"]) == 1 or any(isinstance(item, Route) for item in wanted)
