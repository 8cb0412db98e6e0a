"""Which leases are trusted: each rule, who wins where two clash, and that the order of events never matters."""

import json
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from time import perf_counter
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from flannel_core.admission import Admission, Delta, Refused
from flannel_core.backend import ANY, Announcement, Backend, Node, NoOptions
from flannel_core.host import Host
from flannel_core.lease import FAMILIES, NOWHERE, Endpoint, Family, Lease, Malformed
from flannel_core.netconf import NetworkConfig, parse_config
from flannel_core.objects import Object


class Vtep(msgspec.Struct, frozen=True):
    VNI: int
    VtepMAC: Annotated[str, Meta(pattern="^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]


class Plain(Backend[NoOptions, None]):
    """A backend without data, like host-gw."""

    published_type = "host-gw"
    accepts: ClassVar[Any] = frozenset({"host-gw"})

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        raise NotImplementedError

    def local(self, node: Node) -> Iterable[Object]:
        return ()

    def peer(self, node: Node, lease: Lease) -> Iterable[Object]:
        return ()


class Any_(Plain):
    """A backend that forwards to peers of any type, like udp."""

    accepts = ANY


class Tunnel(Plain):
    """A backend with a MAC per family, like vxlan."""

    Data = Vtep
    published_type = "vxlan"
    accepts = frozenset({"vxlan"})

    def identities(self, lease: Lease) -> Iterable[object]:
        return [("VtepMAC", endpoint.data.VtepMAC) for endpoint in lease.endpoints]

    def refusal(self, lease: Lease) -> str | None:
        for endpoint in lease.endpoints:
            if int(endpoint.data.VtepMAC[:2], 16) & 1:
                return f"its VtepMAC {endpoint.data.VtepMAC} is a multicast address"
        return None


class Clumsy(Tunnel):
    """A backend with a bug that some data brings out."""

    def identities(self, lease: Lease) -> Iterable[object]:
        return [1 // endpoint.data.VNI for endpoint in lease.endpoints]


class Outside(Plain):
    """A backend whose data is a JSON string or absent, like extension."""

    Data: ClassVar[Any] = str | None


def config(**keys: object) -> NetworkConfig:
    return parse_config(json.dumps({"Network": "10.5.0.0/16"} | keys).encode(), "net-conf.json")


FOUR = config(Backend={"Type": "vxlan"})
DUAL = config(EnableIPv6=True, IPv6Network="fc00::/48", Backend={"Type": "vxlan"})
SIX = config(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/48", Backend={"Type": "vxlan"})


def mac(number: int) -> bytes:
    return b'{"VNI":1,"VtepMAC":"8a:00:00:00:%02x:%02x"}' % (number >> 8, number & 255)


def lease(
    number: int,
    *,
    subnet: str | None = "",
    ip: str = "",
    data: bytes | None = b"",
    v6: Endpoint | None = None,
    created: int | None = None,
    key: str = "",
    backend_type: str = "vxlan",
) -> Lease:
    """Host ``number``'s lease, sound but for what is given. "" is its usual value."""
    ipv4 = None
    if subnet is not None:
        subnet = subnet or f"10.5.{number}.0/24"
        ipv4 = Endpoint(ip_network(subnet), ip_address(ip or f"192.0.2.{number}"), mac(number) if data == b"" else data)
    name = key or "&".join(str(e.subnet).replace("/", "-") for e in (ipv4, v6) if e is not None)
    return Lease(name, backend_type, ipv4, v6, number if created is None else created, number)


def v6(number: int, *, subnet: str = "", ip: str = "", data: bytes | None = b"") -> Endpoint:
    subnet = subnet or f"fc00:0:0:{number:x}::/64"
    return Endpoint(
        ip_network(subnet), ip_address(ip or f"2001:db8::{number:x}"), mac(number + 256) if data == b"" else data
    )


def admission(
    *leases: Lease, config: NetworkConfig = FOUR, backend: type[Plain] = Tunnel, own: Lease | None = None
) -> Admission:
    found = Admission(config, backend(NoOptions()), own)
    found.replace(leases)
    return found


def reason(lease: Lease, **how: Any) -> str:
    """Why ``lease`` is refused, standing alone."""
    found = admission(lease, **how)
    assert found.admitted == {}
    return found.refused[lease.key].reason


@pytest.mark.parametrize("family", [4, 6])
def test_a_family_that_leads_nowhere_is_left_out_without_a_word_and_the_other_is_admitted(family: Family) -> None:
    nowhere = str(NOWHERE[family])
    one = lease(3, ip=nowhere if family == 4 else "", v6=v6(3, ip=nowhere if family == 6 else ""))
    found = admission(one, config=DUAL)
    assert found.refused == {}
    assert [subnet.version for subnet in found.admitted[one.key].subnets] == [10 - family]


def test_a_lease_that_leads_nowhere_at_all_says_so() -> None:
    both = lease(3, ip=str(NOWHERE[4]), v6=v6(3, ip=str(NOWHERE[6])))
    assert "can be reached in no family" in reason(both, config=DUAL)


def test_a_sound_lease_is_admitted_with_its_data_decoded() -> None:
    found = admission(lease(3))
    assert found.refused == {}
    assert found.admitted == {
        "10.5.3.0-24": Lease(
            "10.5.3.0-24",
            "vxlan",
            Endpoint(ip_network("10.5.3.0/24"), ip_address("192.0.2.3"), Vtep(1, "8a:00:00:00:00:03")),
            None,
            3,
            3,
        )
    }


@pytest.mark.parametrize("length", [17, 23, 25, 30])
def test_the_length_of_a_subnet_is_not_compared_with_subnetlen(length: int) -> None:
    one = lease(3, subnet=str(ip_network(f"10.5.64.0/{length}", strict=False)))
    assert list(admission(one).admitted) == [one.key]


@pytest.mark.parametrize("subnet", ["10.5.0.0/16", "10.0.0.0/8", "10.6.1.0/24", "0.0.0.0/1"])
def test_a_subnet_that_is_not_a_part_of_the_network_is_refused(subnet: str) -> None:
    assert reason(lease(3, subnet=subnet)) == f"its subnet {subnet} is not a part of 10.5.0.0/16, the Network"


@pytest.mark.parametrize(
    ("ip", "what"),
    [
        ("0.0.0.0", "unspecified"),
        ("127.0.0.1", "a loopback address"),
        ("169.254.1.1", "link-local"),
        ("224.0.0.1", "a multicast address"),
        ("239.255.255.255", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("10.5.9.1", "inside 10.5.0.0/16, the Network itself"),
    ],
)
def test_a_public_ip_that_no_host_can_have_is_refused(ip: str, what: str) -> None:
    assert reason(lease(3, ip=ip)) == f"its PublicIP {ip} is {what}"


@pytest.mark.parametrize("ip", ["240.0.0.1", "10.6.0.1", "0.0.0.1", "8.8.8.8"])
def test_an_unusual_public_ip_is_not_refused(ip: str) -> None:
    assert admission(lease(3, ip=ip)).refused == {}


@pytest.mark.parametrize(
    ("ip", "what"),
    [
        ("::", "unspecified"),
        ("::1", "the loopback address"),
        ("::ffff:192.0.2.1", "an IPv4 address"),
        ("fe80::1", "link-local"),
        ("ff02::1", "a multicast address"),
        ("fc00:0:0:9::1", "inside fc00::/48, the Network itself"),
    ],
)
def test_a_public_ipv6_that_no_host_can_have_is_refused(ip: str, what: str) -> None:
    shown = str(ip_address(ip))
    assert reason(lease(3, subnet=None, v6=v6(3, ip=ip)), config=SIX) == f"its PublicIPv6 {shown} is {what}"


def test_a_lease_with_ipv6_alone_needs_no_ipv4_address() -> None:
    assert admission(lease(3, subnet=None, v6=v6(3)), config=SIX).refused == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "its BackendData is missing"),
        (b'{"VNI":1}', 'its BackendData {"VNI":1} does not fit: Object missing required field `VtepMAC`'),
        (b"[]", "its BackendData [] does not fit: Expected `object`, got `array`"),
        (b"[" * 5000 + b"]" * 5000, "its BackendData"),
        (b'{"VNI":1,"VtepMAC":"\\u001b[31m"}', "its BackendData"),
        (
            b'{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}',
            "its VtepMAC 01:00:5e:00:00:01 is a multicast address",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_data_that_does_not_fit_is_refused(data: bytes | None, expected: str) -> None:
    found = reason(lease(3, data=data))
    assert found.startswith(expected)
    assert found.isprintable()
    assert len(found) < 300


def test_a_backend_without_data_ignores_it() -> None:
    (found,) = admission(lease(3, backend_type="host-gw"), backend=Plain).admitted.values()
    assert found.ipv4 is not None
    assert found.ipv4.data is None


@pytest.mark.parametrize(("data", "decoded"), [(None, None), (b'"text"', "text")])
def test_data_may_be_optional(data: bytes | None, decoded: str | None) -> None:
    (found,) = admission(lease(3, data=data, backend_type="host-gw"), backend=Outside).admitted.values()
    assert found.ipv4 is not None
    assert found.ipv4.data == decoded


def test_a_backend_that_trips_over_one_peers_data_harms_no_other() -> None:
    zero = lease(3, data=b'{"VNI":0,"VtepMAC":"8a:00:00:00:00:03"}')
    found = admission(zero, lease(4), backend=Clumsy)
    assert list(found.admitted) == ["10.5.4.0-24"]
    assert found.refused["10.5.3.0-24"].reason == (
        "the backend failed on its BackendData: integer division or modulo by zero"
    )


def test_a_lease_of_another_type_is_refused_naming_both() -> None:
    assert reason(lease(3, backend_type="host-gw\x1b")) == (
        "its BackendType is 'host-gw\\x1b', and the backend here, vxlan, forwards to 'vxlan' only"
    )


def test_a_backend_may_accept_any_type() -> None:
    assert admission(lease(3, backend_type="whatever"), backend=Any_).refused == {}


def test_a_family_that_is_off_is_dropped_without_a_word() -> None:
    found = admission(lease(3, v6=v6(3, ip="ff02::1")))
    assert found.refused == {}
    (admitted,) = found.admitted.values()
    assert (admitted.ipv4 is not None, admitted.ipv6) == (True, None)


def test_a_lease_without_a_family_that_is_on_is_refused() -> None:
    assert reason(lease(3, subnet=None, v6=v6(3))) == "it has IPv6 only, which is off"


def test_families_fail_apart() -> None:
    key = "10.5.3.0-24&fc00:0:0:3::-64"
    found = admission(lease(3, v6=v6(3, ip="ff02::1")), config=DUAL)
    assert [endpoint.subnet.version for endpoint in found.admitted[key].endpoints] == [4]
    assert found.refused == {
        key: Refused(key, ("fc00:0:0:3::/64",), "IPv6: its PublicIPv6 ff02::1 is a multicast address")
    }


def test_each_familys_reason_is_told() -> None:
    one = lease(3, ip="127.0.0.1", v6=v6(3, data=None))
    assert admission(one, config=DUAL).refused == {
        one.key: Refused(
            one.key,
            ("10.5.3.0/24", "fc00:0:0:3::/64"),
            "IPv4: its PublicIP 127.0.0.1 is a loopback address; IPv6: its BackendV6Data is missing",
        )
    }


def test_both_families_of_one_lease_may_share_an_identity() -> None:
    one = lease(3, v6=v6(3, data=mac(3)))
    found = admission(one, config=DUAL)
    assert found.refused == {}
    assert len(found.admitted[one.key].endpoints) == 2


def test_an_entry_that_is_no_lease_is_shown_and_harms_nobody() -> None:
    found = Admission(FOUR, Tunnel(NoOptions()))
    found.replace([lease(3)], [Malformed("\x1b[31m", "the key names no subnet", 7)])
    assert list(found.admitted) == ["10.5.3.0-24"]
    assert found.refused == {"\x1b[31m": Refused("\\x1b[31m", (), "the key names no subnet")}


OLD = lease(3)
OVERLAPPING = lease(4, subnet="10.5.2.0/23")
SAME_MAC = lease(5, data=mac(3))


def test_of_two_that_overlap_the_older_holds_the_subnet() -> None:
    found = admission(OVERLAPPING, OLD)
    assert list(found.admitted) == [OLD.key]
    assert found.refused == {
        "10.5.2.0-23": Refused(
            "10.5.2.0-23",
            ("10.5.2.0/23",),
            "its subnet 10.5.2.0/23 overlaps 10.5.3.0/24, that of '10.5.3.0-24', which is older",
        )
    }


def test_of_two_with_one_mac_the_older_holds_it() -> None:
    found = admission(SAME_MAC, OLD)
    assert list(found.admitted) == [OLD.key]
    assert found.refused[SAME_MAC.key].reason == (
        "its VtepMAC 8a:00:00:00:00:03 is that of '10.5.3.0-24', which is older"
    )


def test_of_two_equally_old_ones_the_first_by_key_holds() -> None:
    one, other = lease(3, created=1, data=mac(9)), lease(4, created=1, data=mac(9))
    assert list(admission(other, one).admitted) == [one.key]


@pytest.mark.parametrize("refused", [OVERLAPPING, SAME_MAC], ids=["overlap", "MAC"])
def test_the_other_is_admitted_as_soon_as_the_holder_goes(refused: Lease) -> None:
    found = admission(OLD, refused)
    delta = found.update(OLD.key, None)
    assert list(delta.admitted) == [refused.key]
    assert delta.withdrawn == {OLD.key}
    assert found.refused == {}


def test_the_other_is_admitted_as_soon_as_the_holder_is_repaired() -> None:
    found = admission(OLD, SAME_MAC)
    delta = found.update(OLD.key, lease(3, data=mac(77)))
    assert sorted(delta.admitted) == [OLD.key, SAME_MAC.key]
    assert delta.withdrawn == frozenset()
    assert found.refused == {}


def test_a_refused_lease_is_taken_at_once_when_it_is_repaired() -> None:
    found = admission(lease(3, data=None))
    delta = found.update("10.5.3.0-24", lease(3))
    assert list(delta.admitted) == ["10.5.3.0-24"]
    assert found.refused == {}


def test_an_older_lease_that_appears_late_takes_what_it_holds() -> None:
    found = admission(SAME_MAC)
    delta = found.update(OLD.key, OLD)
    assert delta.withdrawn == {SAME_MAC.key}
    assert list(delta.admitted) == [OLD.key]
    assert list(delta.refused) == [SAME_MAC.key]


def test_a_refused_lease_holds_nothing_against_a_third() -> None:
    """a before b before c, where b clashes with both: c is admitted, as long as a is there."""
    a, b, c = lease(3, data=mac(1)), lease(4, subnet="10.5.4.0/23", data=mac(1)), lease(5, data=mac(5))
    found = admission(c, b, a)
    assert sorted(found.admitted) == [a.key, c.key]
    delta = found.update(a.key, None)
    assert (list(delta.admitted), delta.withdrawn) == ([b.key], frozenset({a.key, c.key}))
    delta = found.update(a.key, a)
    assert (sorted(delta.admitted), delta.withdrawn) == ([a.key, c.key], frozenset({b.key}))


def test_a_lease_that_is_made_again_is_young_again() -> None:
    found = admission(OLD, SAME_MAC)
    delta = found.update(OLD.key, lease(3, created=99))
    assert (list(delta.admitted), delta.withdrawn) == ([SAME_MAC.key], frozenset({OLD.key}))


def test_holders_that_go_together_leave_nothing_behind() -> None:
    """In whatever order: of two that clash, the younger one is asked again when the older goes, while it goes too."""
    elders = [lease(n, data=mac(n)) for n in range(1, 20)]
    heirs = [lease(n + 100, data=mac(n), created=n + 100) for n in range(1, 20)]
    found = admission(*elders, *heirs)
    found.replace([])
    third = [lease(n + 200, data=mac(n), created=n + 200) for n in range(1, 20)]
    assert sorted(found.replace(third).admitted) == sorted(one.key for one in third)


def test_only_the_family_that_clashes_is_refused() -> None:
    young = lease(9, v6=v6(9, subnet="fc00:0:0:3::/64"))
    found = admission(lease(3, v6=v6(3)), young, config=DUAL)
    assert [endpoint.subnet.version for endpoint in found.admitted[young.key].endpoints] == [4]
    assert found.refused[young.key].subnets == ("fc00:0:0:3::/64",)


OWN = lease(50, created=1000)


def test_our_own_lease_is_no_peer() -> None:
    found = admission(OWN, lease(3), own=OWN)
    assert list(found.admitted) == ["10.5.3.0-24"]
    assert found.refused == {}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (lease(1, subnet="10.5.50.0/25"), "its subnet 10.5.50.0/25 overlaps 10.5.50.0/24, our own"),
        (lease(1, data=mac(50)), "its VtepMAC 8a:00:00:00:00:32 is our own"),
        (lease(1, ip="192.0.2.50"), "its public address 192.0.2.50 is our own"),
    ],
    ids=["subnet", "MAC", "address"],
)
def test_what_is_ours_is_refused_to_a_peer_of_any_age(peer: Lease, expected: str) -> None:
    assert reason(peer, own=OWN) == expected


def test_our_own_data_may_be_decoded_already() -> None:
    (own,) = admission(OWN).admitted.values()
    assert reason(lease(1, data=mac(50)), own=own) == "its VtepMAC 8a:00:00:00:00:32 is our own"


def test_our_own_lease_of_another_backend_still_holds_its_subnet() -> None:
    own = lease(50, data=b'"text"', backend_type="extension")
    assert reason(lease(1, subnet="10.5.50.0/25"), own=own).endswith("our own")


def test_a_lease_that_becomes_ours_is_withdrawn_and_its_neighbours_are_judged_again() -> None:
    found = admission(OWN, lease(3, ip="192.0.2.50"), lease(4))
    delta = found.set_own(OWN)
    assert delta.withdrawn == {OWN.key, "10.5.3.0-24"}
    assert list(found.admitted) == ["10.5.4.0-24"]
    delta = found.set_own(None)
    assert sorted(delta.admitted) == ["10.5.3.0-24", OWN.key]
    assert found.refused == {}


def test_our_own_address_that_changes_refuses_and_frees_peers() -> None:
    found = admission(lease(3), lease(4), own=OWN)
    delta = found.set_own(lease(50, ip="192.0.2.3"))
    assert delta.withdrawn == {"10.5.3.0-24"}
    delta = found.set_own(lease(50, ip="192.0.2.4"))
    assert (list(delta.admitted), delta.withdrawn) == (["10.5.3.0-24"], frozenset({"10.5.4.0-24"}))


def test_a_peer_that_moves_to_our_address_is_refused_until_it_moves_on() -> None:
    found = admission(lease(3), own=OWN)
    assert found.update("10.5.3.0-24", lease(3, ip="192.0.2.50")).withdrawn == {"10.5.3.0-24"}
    assert list(found.update("10.5.3.0-24", lease(3, ip="192.0.2.51")).admitted) == ["10.5.3.0-24"]


def test_a_renewal_is_told_as_a_change_of_that_lease_alone() -> None:
    found = admission(lease(3), lease(4))
    renewed = msgspec.structs.replace(lease(3), revision=99, expires=5.0)
    delta = found.update(renewed.key, renewed)
    assert {key: changed.revision for key, changed in delta.admitted.items()} == {"10.5.3.0-24": 99}
    assert (delta.withdrawn, delta.refused) == (frozenset(), {})


def test_the_same_again_is_no_change() -> None:
    found = admission(lease(3), SAME_MAC)
    nothing = Delta({}, frozenset(), {})
    assert found.update("10.5.3.0-24", lease(3)) == nothing
    assert found.replace([lease(3), SAME_MAC]) == nothing
    assert found.update("10.5.99.0-24", None) == nothing


def test_a_snapshot_tells_what_came_changed_and_went() -> None:
    found = admission(lease(3), lease(4), lease(5))
    delta = found.replace([lease(4), lease(5, ip="192.0.2.55"), lease(6)])
    assert (sorted(delta.admitted), delta.withdrawn) == (["10.5.5.0-24", "10.5.6.0-24"], frozenset({"10.5.3.0-24"}))


# --- any sequence of events ---------------------------------------------------------------------------------------

KEYS = [f"lease-{number}" for number in range(7)]
SUBNETS4 = st.sampled_from(["10.5.0.0/17", "10.5.4.0/22", "10.5.4.0/24", "10.5.4.128/25", "10.5.5.0/24", "10.9.0.0/24"])
SUBNETS6 = st.sampled_from(["fc00:0:0:4::/62", "fc00:0:0:4::/64", "fc00:0:0:5::/64"])
MACS = st.sampled_from([mac(1), mac(2), mac(3), None])
ENDPOINTS4 = st.builds(
    lambda subnet, ip, data: Endpoint(ip_network(subnet), ip_address(ip), data),
    SUBNETS4,
    st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.50", "127.0.0.1"]),
    MACS,
)
ENDPOINTS6 = st.builds(
    lambda subnet, ip, data: Endpoint(ip_network(subnet), ip_address(ip), data),
    SUBNETS6,
    st.sampled_from(["2001:db8::1", "2001:db8::2"]),
    MACS,
)
BOTH = st.tuples(ENDPOINTS4, st.none() | ENDPOINTS6) | st.tuples(st.none(), ENDPOINTS6)


def entries_of(key: str) -> st.SearchStrategy[Lease | Malformed]:
    leases = st.builds(
        lambda ends, created, revision, kind: Lease(key, kind, ends[0], ends[1], created, revision),
        BOTH,
        st.integers(1, 4),
        st.integers(1, 2),
        st.sampled_from(["vxlan", "vxlan", "vxlan", "host-gw"]),
    )
    return leases | leases | leases | st.builds(Malformed, st.just(key), st.sampled_from(["odd", "broken"]))


ENTRIES = st.sampled_from(KEYS).flatmap(entries_of)
CHANGES = st.tuples(st.just("update"), ENTRIES | st.sampled_from(KEYS))
SNAPSHOTS = st.tuples(st.just("replace"), st.lists(ENTRIES, max_size=5, unique_by=lambda entry: entry.key))
OWNS = st.tuples(st.just("own"), st.none() | ENTRIES.filter(lambda entry: isinstance(entry, Lease)))
EVENTS = st.lists(CHANGES | CHANGES | CHANGES | SNAPSHOTS | OWNS, max_size=25)


def split(entries: Iterable[Lease | Malformed]) -> tuple[list[Lease], list[Malformed]]:
    found = list(entries)
    return [e for e in found if isinstance(e, Lease)], [e for e in found if isinstance(e, Malformed)]


@settings(max_examples=200, deadline=None)
@given(events=EVENTS)
def test_any_sequence_of_events_ends_as_if_the_last_state_came_at_once(events: Sequence[tuple[str, Any]]) -> None:
    found = Admission(DUAL, Tunnel(NoOptions()))
    entries: dict[str, Lease | Malformed] = {}
    own: Lease | None = None
    mirror: dict[str, Lease] = {}
    for kind, event in events:
        if kind == "replace":
            entries = {entry.key: entry for entry in event}
            delta = found.replace(*split(event))
        elif kind == "own":
            own = event
            delta = found.set_own(event)
        elif isinstance(event, str):
            entries.pop(event, None)
            delta = found.update(event, None)
        else:
            entries[event.key] = event
            delta = found.update(event.key, event)
        # Whoever only follows the deltas knows what is admitted.
        assert not delta.withdrawn & delta.admitted.keys()
        assert delta.withdrawn <= mirror.keys()
        mirror = {key: lease for key, lease in mirror.items() if key not in delta.withdrawn} | delta.admitted
        assert mirror == found.admitted
    at_once = Admission(DUAL, Tunnel(NoOptions()), own)
    at_once.replace(*split(entries.values()))
    assert found.admitted == at_once.admitted
    assert found.refused == at_once.refused
    assert admitted_by_hand(entries, own) == {
        (key, family) for key, one in found.admitted.items() for family in FAMILIES if one.endpoint(family)
    }
    others = entries.keys() - ({own.key} if own else set())
    assert found.admitted.keys() | found.refused.keys() == others


def admitted_by_hand(entries: dict[str, Lease | Malformed], own: Lease | None) -> set[tuple[str, int]]:
    """The same decision by the plainest means: from the oldest on, whoever clashes with nobody before is in."""
    holders: list[tuple[str, int, Endpoint]] = []
    for family in FAMILIES:
        endpoint = own.endpoint(family) if own else None
        if own and endpoint:
            holders.append((own.key, family, endpoint))
    ours = {endpoint.public_ip for endpoint in own.endpoints} if own else set()
    admitted = set()
    leases = [e for e in entries.values() if isinstance(e, Lease) and not (own and e.key == own.key)]
    for one in sorted(leases, key=lambda e: (e.created, e.key)):
        for family in FAMILIES:
            endpoint = one.endpoint(family)
            space = DUAL.space(family)
            if (
                endpoint is None
                or space is None
                or one.backend_type != "vxlan"
                or endpoint.data is None
                or endpoint.public_ip.is_loopback
                or endpoint.public_ip in ours
                or not endpoint.subnet.subnet_of(space.network)  # type: ignore[arg-type]
            ):
                continue
            for key, other, holder in holders:
                if key != one.key and (
                    holder.data == endpoint.data or (other == family and holder.subnet.overlaps(endpoint.subnet))
                ):
                    break
            else:
                holders.append((one.key, family, endpoint))
                admitted.add((one.key, int(family)))
    return admitted


# --- size ---------------------------------------------------------------------------------------------------------


def many(count: int, *, one_mac: bool = False) -> list[Lease]:
    big = []
    for number in range(1, count + 1):
        subnet = ip_network((0x0A000000 + (number << 8), 24))
        endpoint = Endpoint(subnet, ip_address(0xC0000000 + number), mac(1 if one_mac else number))
        big.append(Lease(f"{subnet.network_address}-24", "vxlan", endpoint, None, number, number))
    return big


def test_one_change_among_10000_leases_costs_no_rescan() -> None:
    wide = config(Network="10.0.0.0/8", Backend={"Type": "vxlan"})
    leases = many(10_000)
    found = admission(*leases, config=wide)
    assert len(found.admitted) == 10_000
    started = perf_counter()
    for one in leases[:200]:
        found.update(one.key, None)
        found.update(one.key, one)
    assert (perf_counter() - started) / 400 < 0.001
    assert len(found.admitted) == 10_000


def test_10000_leases_that_claim_one_mac_are_settled_in_a_moment() -> None:
    wide = config(Network="10.0.0.0/8", Backend={"Type": "vxlan"})
    same = many(10_000, one_mac=True)
    started = perf_counter()
    found = admission(*reversed(same), config=wide)
    found.update(same[0].key, None)
    assert perf_counter() - started < 10
    assert list(found.admitted) == [same[1].key]
