"""The keys of "Backend": every one that is wrong is named, with what would be right."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from msgspec import Meta

from flannel_core.backend import Announcement, Backend, Node
from flannel_core.backend_options import decode_options, unknown_options
from flannel_core.host import Host
from flannel_core.lease import Lease
from flannel_core.netconf import ConfigInvalid, NetworkConfig, parse_config
from flannel_core.objects import Object

SOURCE = "/etc/kube-flannel/net-conf.json"


class Inner(msgspec.Struct, frozen=True):
    Address: str
    Weight: Annotated[int, Meta(ge=0, le=9)] = 1


class TunnelOptions(msgspec.Struct, frozen=True):
    VNI: Annotated[int, Meta(ge=1, le=16777215)] = 1
    Port: Annotated[int, Meta(ge=0)] = 0
    Learning: bool = False
    Mode: Literal["separate", "auto"] = "separate"
    Tables: str | list[str] = ""
    Peers: list[Inner] = []
    ByName: dict[str, Inner] = {}
    Only: Inner | None = None
    PSK: Annotated[str, Meta(max_length=5)] = ""

    def __post_init__(self) -> None:
        if self.Learning and self.Mode == "auto":
            raise ValueError("Learning needs Mode separate")


class NeedyOptions(msgspec.Struct, frozen=True):
    ProjectID: str


class Tunnel(Backend[Any, None]):
    Options: ClassVar[type[msgspec.Struct]] = TunnelOptions

    async def prepare(self, host: Host, previous: Lease | None, *, dry_run: bool) -> Announcement:
        raise NotImplementedError

    def local(self, node: Node) -> tuple[Object, ...]:
        return ()

    def peer(self, node: Node, lease: Lease) -> tuple[Object, ...]:
        return ()


class Needy(Tunnel):
    Options = NeedyOptions


Keys = Mapping[str, object]


def config(keys: Keys = MappingProxyType({}), backend_type: str = "vxlan") -> NetworkConfig:
    tree = {"Network": "10.5.0.0/16", "Backend": {"Type": backend_type, **keys}}
    return parse_config(json.dumps(tree).encode(), SOURCE)


def errors(keys: Keys, backend_type: str = "vxlan") -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        decode_options(config(keys, backend_type), Tunnel, SOURCE)
    return [str(error) for error in caught.value.errors]


def test_keys_that_are_left_out_have_their_defaults() -> None:
    assert decode_options(config(), Tunnel, SOURCE) == TunnelOptions()


def test_keys_are_matched_without_regard_to_case_at_every_level() -> None:
    keys = {
        "vni": 7,
        "LEARNING": True,
        "peers": [{"ADDRESS": "a", "weight": 3}],
        "byname": {"Left": {"address": "b"}},
        "only": {"address": "c"},
    }
    assert decode_options(config(keys), Tunnel, SOURCE) == TunnelOptions(
        VNI=7, Learning=True, Peers=[Inner("a", 3)], ByName={"Left": Inner("b")}, Only=Inner("c")
    )


def test_null_keeps_the_default_at_every_level() -> None:
    keys = {"VNI": None, "Peers": [{"Address": "a", "Weight": None}]}
    assert decode_options(config(keys), Tunnel, SOURCE) == TunnelOptions(Peers=[Inner("a", 1)])


@pytest.mark.parametrize("tables", ["main", ["a", "b"]])
def test_a_key_may_take_one_type_or_another(tables: object) -> None:
    assert decode_options(config({"Tables": tables}), Tunnel, SOURCE) == TunnelOptions(Tables=tables)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"VNI": "one"},
            'Backend.VNI is "one": error decoding VXLAN backend config: Expected integer, got string; '
            "write an integer from 1 to 16777215, or leave it out",
        ),
        (
            {"vni": 0},
            "Backend.VNI is 0: error decoding VXLAN backend config: Expected integer >= 1; "
            "write an integer from 1 to 16777215, or leave it out",
        ),
        (
            {"VNI": 1.0},
            "Backend.VNI is 1.0: error decoding VXLAN backend config: Expected integer, got float; "
            "write an integer from 1 to 16777215, or leave it out",
        ),
        (
            {"Port": -1},
            "Backend.Port is -1: error decoding VXLAN backend config: Expected integer >= 0; "
            "write an integer of at least 0, or leave it out",
        ),
        (
            {"Learning": 1},
            "Backend.Learning is 1: error decoding VXLAN backend config: Expected boolean, got integer; "
            "write true or false, or leave it out",
        ),
        (
            {"Mode": "both"},
            "Backend.Mode is \"both\": error decoding VXLAN backend config: Invalid enum value 'both'; "
            'write "separate" or "auto", or leave it out',
        ),
        (
            {"Tables": 5},
            "Backend.Tables is 5: error decoding VXLAN backend config: Expected string | array, got integer; "
            "write a string or a list, each item a string, or leave it out",
        ),
        (
            {"Peers": [{"Address": "a", "Weight": 10}]},
            'Backend.Peers is [{"Address":"a","Weight":10}]: error decoding VXLAN backend config: '
            "Expected integer <= 9 at [0].Weight; "
            "write a list, each item an object with Address, Weight, or leave it out",
        ),
        (
            {"PSK": "top secret"},
            "Backend.PSK is ***: error decoding VXLAN backend config: Expected string of length <= 5; "
            "write a string, or leave it out",
        ),
        (
            {"Learning": True, "Mode": "auto"},
            "Backend is {…}: error decoding VXLAN backend config: Learning needs Mode separate; "
            "change or leave out one of these keys",
        ),
    ],
    ids=str,
)
def test_a_bad_key_is_named_with_its_value_and_the_cure(keys: Keys, message: str) -> None:
    assert errors(keys) == [f"{SOURCE}: {message}"]


def test_every_bad_key_is_named_not_only_the_first() -> None:
    assert [line.split(" is ")[0] for line in errors({"VNI": -1, "Port": "x", "Learning": []})] == [
        f"{SOURCE}: Backend.VNI",
        f"{SOURCE}: Backend.Port",
        f"{SOURCE}: Backend.Learning",
    ]


@pytest.mark.parametrize(
    ("backend_type", "prefix"),
    [
        ("vxlan", "error decoding VXLAN backend config: "),
        ("udp", "error decoding UDP backend config: "),
        ("ipip", "error decoding IPIP backend config: "),
        ("ipsec", "error decoding IPSEC backend config: "),
        ("wireguard", "error decoding backend config: "),
        ("extension", "error decoding backend config: "),
        ("theirs", "error decoding backend config: "),
    ],
)
def test_the_sentence_begins_as_in_go(backend_type: str, prefix: str) -> None:
    (message,) = errors({"VNI": "x"}, backend_type)
    assert f": {prefix}Expected" in message


def test_a_key_without_a_default_that_is_left_out_is_named() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        decode_options(config(backend_type="gce"), Needy, SOURCE)
    assert str(caught.value) == (
        f"{SOURCE}: Backend.ProjectID is missing: error decoding backend config: it has no default; write a string"
    )


def test_unknown_keys_do_no_harm_and_can_be_named() -> None:
    odd = config({"VNI": 2, "vnid": 3, "\x1b[31m": 1})
    assert decode_options(odd, Tunnel, SOURCE) == TunnelOptions(VNI=2)
    assert unknown_options(odd, Tunnel) == ("vnid", "\\x1b[31m")


def test_a_known_key_in_another_case_is_not_unknown() -> None:
    assert unknown_options(config({"vni": 2, "PORT": 3}), Tunnel) == ()
