"""What should exist: frozen values with an identity. Backends return them, the reconciler makes them so.

Addresses and prefixes are text in the kernel's canonical form (``10.5.3.0/24``, ``fc00::1``), devices are named and
never numbered: what does not exist yet can still be wanted. Two objects with one identity are the same thing in two
states; ``satisfied_by`` tells whether the state found is the state wanted.

A kind that lives elsewhere than in the kernel is a subclass of :class:`Object` in the plugin that wants it, together
with the :class:`flannel_core.target.Target` that reads and writes it.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

Identity = tuple[object, ...]

FLANNEL_PROTOCOL = 76
"""rtm_protocol of the routes this agent writes. Free in the kernel's rtnetlink.h and in iproute2's rt_protos (Go
flannel writes RTPROT_BOOT, 3)."""
BOOT_PROTOCOL = 3
"""RTPROT_BOOT of linux/rtnetlink.h: what Go flannel and an operator's ``ip route add`` write."""
VXLAN_PORT = 8472
"""The vxlan module's udp_port (drivers/net/vxlan): the port of a device that is given none."""
MAIN_TABLE = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""


class Object(msgspec.Struct, frozen=True, gc=False):
    """Something that should exist. Subclasses set ``kind`` and ``identity``; equality covers every field."""

    kind: ClassVar[str] = ""
    removable: ClassVar[bool] = True
    """False: the kind knows no absence (a sysctl always has a value); what is no longer wanted is left as it is."""

    @property
    def identity(self) -> Identity:
        """What makes it this object and no other. The first item is ``kind``, which keeps kinds apart."""
        raise NotImplementedError

    @property
    def on_device(self) -> str | None:
        """The device that takes this object along when it disappears, or None."""
        return None

    @property
    def record(self) -> str | None:
        """What ``owned.json`` says of it before it is made, where its place cannot be asked whose it is (a port, a
        cloud's route table); its target finds it in ``Scope.records``. Of this host's own objects only."""
        return None

    def satisfied_by(self, actual: Object) -> bool:
        """True if ``actual``, of the same identity, needs no change."""
        return self == actual

    def describe(self) -> str:
        """One line for a person, in the words of ``ip`` where there are any."""
        return repr(self)


class LinkInfo(msgspec.Struct, frozen=True, gc=False):
    """What a link of one kind has beside the common attributes (IFLA_INFO_DATA)."""

    kind: ClassVar[str] = ""

    def must_be_remade(self, actual: LinkInfo) -> bool:
        """True if a link with ``actual`` cannot be changed into one with this in place."""
        return self != actual

    def satisfied_by(self, actual: LinkInfo) -> bool:
        """True if ``actual``, which need not be remade, needs no change either."""
        return self == actual

    def describe(self) -> str:
        return f"type {self.kind or 'unknown'}"


class Vxlan(LinkInfo, frozen=True, gc=False):
    """IFLA_VXLAN_* of a link. ``port`` is UDP's; 8472 is what Linux takes of itself, from before IANA gave VXLAN 4789.
    Everything but vni, port, gbp and the family of ``local`` can be changed in place (measured on 6.18)."""

    kind: ClassVar[str] = "vxlan"

    vni: int
    underlay: str
    local: str
    port: int = VXLAN_PORT
    learning: bool = False
    gbp: bool = False

    def must_be_remade(self, actual: LinkInfo) -> bool:
        return (
            not isinstance(actual, Vxlan)
            or self.vni != actual.vni
            or self.port != actual.port
            or self.gbp != actual.gbp
            or (":" in self.local) != (":" in actual.local)
        )

    def satisfied_by(self, actual: LinkInfo) -> bool:
        return isinstance(actual, Vxlan) and (self.underlay, self.local, self.learning) == (
            actual.underlay,
            actual.local,
            actual.learning,
        )

    def describe(self) -> str:
        return f"type vxlan id {self.vni} local {self.local} dev {self.underlay}"


class Ipip(LinkInfo, frozen=True, gc=False):
    """IFLA_IPTUN_* of a link: IPv4 in IPv4 from ``local`` to whatever gateway a route names.

    ``ttl`` 0: the inner packet's. ``pmtudisc`` False: "don't fragment" is the inner packet's too; with a ``ttl`` the
    kernel makes it True. ``fou_port``: each packet is the payload of a UDP datagram, with a checksum, from and to
    this port (FOU; the module ``fou`` has to be loaded, and a FOU port to be open for what comes in); None: it is IP
    protocol 4. ``remote``
    and a ``fou_port`` of 0, which stands for any other encapsulation, are what others' devices have. All but ``remote``
    can be changed in place (measured on 6.1).
    """

    kind: ClassVar[str] = "ipip"

    local: str
    ttl: int = 0
    pmtudisc: bool = False
    fou_port: int | None = None
    remote: str = ""

    def must_be_remade(self, actual: LinkInfo) -> bool:
        return not isinstance(actual, Ipip) or self.remote != actual.remote

    def describe(self) -> str:
        encapsulation = f" encap fou encap-dport {self.fou_port}" if self.fou_port else ""
        return f"type ipip local {self.local} remote {self.remote or 'any'}{encapsulation}"


class Wireguard(LinkInfo, frozen=True, gc=False):
    """A WireGuard device. Its key, port and peers are no part of the link: they are written and read elsewhere."""

    kind: ClassVar[str] = "wireguard"


class Tun(LinkInfo, frozen=True, gc=False):
    """A TUN device, whose packets a process reads and writes: without an Ethernet header, and persistent, so that it
    stays while no process holds it. ``owner`` is the uid that may attach to it, None: root alone."""

    kind: ClassVar[str] = "tun"

    owner: int | None = None

    def describe(self) -> str:
        return f"type tun user {self.owner}" if self.owner is not None else "type tun"


class OtherLink(LinkInfo, frozen=True, gc=False):
    """A link of a kind that nobody here makes: only ever read. ``kind_name`` is IFLA_INFO_KIND, "" for hardware."""

    kind_name: str = ""


class Link(Object, frozen=True, gc=False):
    """A network device of ours. ``mac`` None: any; ``txqueuelen`` None: any. Always wanted up."""

    kind: ClassVar[str] = "link"

    name: str
    info: LinkInfo
    mtu: int
    mac: str | None = None
    txqueuelen: int | None = None
    up: bool = True

    @property
    def identity(self) -> Identity:
        return ("link", self.name)

    @property
    def on_device(self) -> str | None:
        return self.name

    def must_be_remade(self, actual: Link) -> bool:
        """True if ``actual`` cannot be changed into this one in place, so that it has to be deleted first."""
        return self.info.must_be_remade(actual.info)

    def satisfied_by(self, actual: Object) -> bool:
        return (
            isinstance(actual, Link)
            and self.mtu == actual.mtu
            and self.up == actual.up
            and self.mac in (None, actual.mac)
            and self.txqueuelen in (None, actual.txqueuelen)
            and not self.info.must_be_remade(actual.info)
            and self.info.satisfied_by(actual.info)
        )

    def describe(self) -> str:
        return f"link {self.name} {self.info.describe()} mtu {self.mtu}"


class Sysctl(Object, frozen=True, gc=False):
    """A value under /proc/sys (``name`` with slashes: ``net/ipv4/ip_forward``). ``optional``: may be missing or
    read-only without that being a failure. ``after``: names and values of others, without which it is not set."""

    kind: ClassVar[str] = "sysctl"
    removable: ClassVar[bool] = False

    name: str
    value: str
    device: str | None = None
    optional: bool = False
    after: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> Identity:
        return ("sysctl", self.name)

    @property
    def dotted(self) -> str:
        """As ``sysctl`` spells it: ``net.ipv6.conf.flannel/1.accept_ra``."""
        return self.name.translate({ord("/"): ".", ord("."): "/"})

    @property
    def on_device(self) -> str | None:
        return self.device

    def satisfied_by(self, actual: Object) -> bool:
        return isinstance(actual, Sysctl) and actual.value == self.value

    def describe(self) -> str:
        return f"sysctl {self.dotted}={self.value}"


class Offload(Object, frozen=True, gc=False):
    """A feature of a device by the name that ``ethtool -k`` gives it, ``on`` or off."""

    kind: ClassVar[str] = "offload"
    removable: ClassVar[bool] = False

    device: str
    feature: str
    on: bool

    @property
    def identity(self) -> Identity:
        return ("offload", self.device, self.feature)

    @property
    def on_device(self) -> str | None:
        return self.device

    def describe(self) -> str:
        return f"offload {self.device} {self.feature} {'on' if self.on else 'off'}"


class Address(Object, frozen=True, gc=False):
    """An address of a device, with its prefix length: ``10.5.3.0/32``. IPv6 is added with IFA_F_NODAD."""

    kind: ClassVar[str] = "address"

    device: str
    address: str

    @property
    def identity(self) -> Identity:
        return ("address", self.device, self.address)

    @property
    def on_device(self) -> str | None:
        return self.device

    def describe(self) -> str:
        return f"address {self.address} dev {self.device}"


class Neighbour(Object, frozen=True, gc=False):
    """A permanent entry (NUD_PERMANENT) of the neighbour table: ``address`` on ``device`` answers at ``mac``."""

    kind: ClassVar[str] = "neighbour"

    device: str
    address: str
    mac: str
    permanent: bool = True

    @property
    def identity(self) -> Identity:
        return ("neighbour", self.device, self.address)

    @property
    def on_device(self) -> str | None:
        return self.device

    def describe(self) -> str:
        return f"neigh {self.address} dev {self.device} lladdr {self.mac} permanent"


class FdbEntry(Object, frozen=True, gc=False):
    """A permanent entry of a VXLAN device's own forwarding database (AF_BRIDGE, NTF_SELF): frames to ``mac`` leave
    for the VTEP at ``remote``. The kernel holds several remotes for a multicast MAC only."""

    kind: ClassVar[str] = "fdb"

    device: str
    mac: str
    remote: str
    permanent: bool = True

    @property
    def identity(self) -> Identity:
        return ("fdb", self.device, self.mac)

    @property
    def on_device(self) -> str | None:
        return self.device

    def describe(self) -> str:
        return f"fdb {self.mac} dev {self.device} dst {self.remote} self permanent"


class Route(Object, frozen=True, gc=False):
    """A route. ``device`` None only for the types that have none (``blackhole``, ``throw``, ``unreachable``).

    ``metric`` None is the family's default (0 for IPv4, 1024 for IPv6), in a route that was read as well; never give
    the default as a number. ``nexthops`` is how many next hops the kernel holds for it; never wanted other than 1.
    """

    kind: ClassVar[str] = "route"

    destination: str
    device: str | None
    gateway: str | None = None
    onlink: bool = False
    source: str | None = None
    scope: int = 0
    type: str = "unicast"
    table: int = MAIN_TABLE
    metric: int | None = None
    tos: int = 0
    mtu: int | None = None
    protocol: int = FLANNEL_PROTOCOL
    nexthops: int = 1

    @property
    def identity(self) -> Identity:
        return ("route", self.table, self.destination, self.tos, self.metric)

    @property
    def on_device(self) -> str | None:
        return self.device

    def describe(self) -> str:
        words = ["route"] if self.type == "unicast" else ["route", self.type]
        words.append(self.destination)
        if self.gateway:
            words += ["via", self.gateway]
        if self.device:
            words += ["dev", self.device]
        if self.metric is not None:
            words += ["metric", str(self.metric)]
        if self.onlink:
            words.append("onlink")
        return " ".join(words)
