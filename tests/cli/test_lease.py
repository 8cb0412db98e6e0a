"""flannelctl lease against a real etcd and an sqlite file: list, release, reserve."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sqlite3
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flannel_core.conformance.stores import DUAL, IPV4, host
from flannel_core.flannelctl.main import main
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.lab.programs import FLANNELCTL
from flannel_core.lease import Lease
from flannel_core.plugins import load_store
from flannel_core.store import Request, StoreContext

SUBNET = IPv4Network("10.5.43.0/24")
CONFIG = b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'


@dataclass
class Place:
    """A store that nobody else uses, and how flannelctl is told of it."""

    name: str
    options: dict[str, Any]
    directory: Path
    put_raw: Callable[[str, str], object] = field(repr=False)

    @property
    def words(self) -> list[str]:
        return [f"--store={self.name}", *(f"--{self.name}-{name}={value}" for name, value in self.options.items())]

    def ask(self, question: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        store_class = load_store(self.name)

        async def ask() -> Any:
            store = store_class(msgspec.convert(self.options, store_class.Options), StoreContext(self.directory))
            await store.open()
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(ask())

    def lease(self, number: int, subnet: IPv4Network = SUBNET, config: Any = IPV4) -> Lease:
        """Host ``number`` holds ``subnet``."""
        wish = host(number, previous_subnets=(subnet,))
        return self.ask(lambda store: store.acquire(Request(config, wish)))

    def held(self) -> list[str]:
        return sorted(lease.key for lease in self.ask(lambda store: store.list()).leases)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    cluster.start("--unsafe-no-fsync")
    yield cluster
    cluster.kill()


@pytest.fixture(params=["sqlite", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        path = tmp_path / "leases.sqlite"

        def put(key: str, value: str) -> None:
            made.ask(lambda store: store.set_config(b"{}"))
            with sqlite3.connect(path) as connection:
                connection.execute("INSERT INTO leases (key, value) VALUES (?, ?)", (key, value))
            connection.close()

        made = Place("sqlite", {"file": str(path)}, tmp_path, put)
        return made
    cluster: EtcdCluster = request.getfixturevalue("cluster")
    prefix = f"/{tmp_path.name}"
    return Place(
        "etcd",
        {"endpoints": cluster.endpoints, "prefix": prefix},
        tmp_path,
        lambda key, value: cluster.control("put", f"{prefix}/subnets/{key}", value),
    )


@pytest.fixture(autouse=True)
def no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", str(tmp_path / "subnet.env"))


def on_a_terminal(words: list[str], answer: str) -> tuple[int, str]:
    """Exit code, and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([str(FLANNELCTL), *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # EIO: its end is closed
        pass
    os.close(ours)
    return process.wait(10), shown.decode()


# --- list ------------------------------------------------------------------------------------------------------------


def test_leases_are_listed_with_the_oldest_first(place: Place, capsys: Any) -> None:
    assert main(["lease", "list", *place.words]) == 0
    assert capsys.readouterr().out == "There is no lease.\n"
    first = place.lease(1)
    place.lease(2, IPv4Network("10.5.1.0/24"))
    place.ask(lambda store: store.reserve(first))
    assert main(["lease", "list", *place.words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SUBNET", "ADDRESS", "BACKEND", "EXPIRES", "CREATED", "MALFORMED"]
    assert lines[1].split()[:-1] == ["10.5.43.0/24", "192.0.2.1", "vxlan", "never,", "reserved"]
    assert lines[2].split()[:-1] == ["10.5.1.0/24", "192.0.2.2", "vxlan", "in", "23", "h", "59", "min"]
    assert int(lines[1].split()[-1]) < int(lines[2].split()[-1])


def test_the_list_as_json_has_both_families(place: Place, capsys: Any) -> None:
    lease = place.lease(1, config=DUAL)
    assert main(["lease", "list", "--json", *place.words]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["subnets"] == [str(subnet) for subnet in lease.subnets]
    assert entry["public_ips"] == ["192.0.2.1", str(host(1).public_ipv6)]
    assert (entry["created"], entry["reserved"], entry["malformed"]) == (lease.created, False, None)
    assert abs(entry["expires"] - lease.expires) < 3


def test_a_malformed_entry_is_listed_with_the_reason_and_can_be_released(place: Place, capsys: Any) -> None:
    place.put_raw("10.5.43.0-24", '{"PublicIP": "\\u001b[31mnowhere"}')
    place.put_raw("nonsense", "{}")
    assert main(["lease", "list", *place.words]) == 1
    out = capsys.readouterr().out
    assert "10.5.43.0/24" in out
    assert "the value is no lease" in out
    assert "the key 'nonsense' is not of the form" in out
    assert "\x1b" not in out
    assert main(["lease", "release", "10.5.43.0/24", "--yes", *place.words]) == 0
    assert [entry.key for entry in place.ask(lambda store: store.list()).malformed] == ["nonsense"]


# --- release ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subnet", ["10.5.43.0/24", "10.5.43.0-24"])
def test_a_lease_is_released_and_its_holder_named(place: Place, capsys: Any, subnet: str) -> None:
    place.lease(1)
    place.lease(2, IPv4Network("10.5.1.0/24"))
    assert main(["lease", "release", subnet, "--yes", *place.words]) == 0
    assert capsys.readouterr().out.startswith(
        "10.5.43.0/24 is released; it was held by 192.0.2.1, vxlan, expires in 23 h"
    )
    assert place.held() == ["10.5.1.0-24"]


def test_either_subnet_of_a_dual_stack_lease_stands_for_it(place: Place) -> None:
    lease = place.lease(1, config=DUAL)
    assert main(["lease", "release", str(lease.subnets[1]), "--yes", *place.words]) == 0
    assert place.held() == []


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y", 0, []), ("n", 1, ["10.5.43.0-24"]), ("", 1, ["10.5.43.0-24"])]
)
def test_at_a_terminal_it_asks_first(place: Place, answer: str, code: int, left: list[str]) -> None:
    place.lease(1)
    ended, shown = on_a_terminal(["lease", "release", "10.5.43.0/24", *place.words], answer)
    assert "10.5.43.0/24 is held by 192.0.2.1, vxlan, expires in" in shown
    assert "Release it? [y/N]" in shown
    assert (ended, place.held()) == (code, left)


def test_without_a_terminal_it_wants_to_be_told(place: Place, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    place.lease(1)
    assert main(["lease", "release", "10.5.43.0/24", *place.words]) == 2
    assert "There is no terminal to answer at; --yes answers" in capsys.readouterr().err
    assert place.held() == ["10.5.43.0-24"]


def test_a_lease_that_changes_hands_before_the_answer_stays(place: Place) -> None:
    place.lease(1)
    ours, theirs = pty.openpty()
    command = [str(FLANNELCTL), "lease", "release", "10.5.43.0/24", *place.words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(ours, 4096)
    place.ask(lambda store: store.release(SUBNET))
    place.lease(2)
    os.write(ours, b"y\n")
    assert process.wait(10) == 1
    assert b"was released or given to another host just now" in os.read(ours, 4096)
    os.close(ours)
    assert place.held() == ["10.5.43.0-24"]


# --- reserve ---------------------------------------------------------------------------------------------------------


def test_a_lease_in_use_is_kept_for_good(place: Place, capsys: Any) -> None:
    lease = place.lease(1)
    assert main(["lease", "reserve", "10.5.43.0/24", *place.words]) == 0
    assert capsys.readouterr().out == "10.5.43.0/24 is reserved for 192.0.2.1\n"
    (kept,) = place.ask(lambda store: store.list()).leases
    assert (kept.created, kept.expires, kept.ipv4) == (lease.created, None, lease.ipv4)


def test_a_free_subnet_is_kept_for_the_host_that_is_reached_there(place: Place) -> None:
    place.ask(lambda store: store.set_config(CONFIG))
    assert main(["lease", "reserve", "10.5.43.0/24", "192.0.2.7", *place.words]) == 0
    taken = place.ask(lambda store: store.acquire(Request(IPV4, host(7))))
    assert (taken.key, taken.expires, taken.ipv4.public_ip) == ("10.5.43.0-24", None, IPv4Address("192.0.2.7"))


def test_in_a_dual_stack_network_both_families_are_kept(place: Place) -> None:
    pair = ["10.5.43.0/24", "fc00:5:0:2b::/64", "192.0.2.7", str(host(7).public_ipv6)]
    assert main(["lease", "reserve", *pair, *place.words]) == 0
    assert place.held() == ["10.5.43.0-24&fc00:5:0:2b::-64"]


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["release"], 2, "lease release takes one subnet"),
        (["release", "10.5.43.7/24", "--yes"], 2, "'10.5.43.7/24' is no subnet"),
        (["release", "10.5.99.0/24", "--yes"], 1, "10.5.99.0/24 is leased to nobody in"),
        (["release", "10.5.43.0/25", "--yes"], 1, "; 10.5.43.0/24 is, to 192.0.2.1"),
        (["reserve"], 2, "lease reserve takes a subnet"),
        (["reserve", "10.5.9.0/24", "10.5.8.0/24"], 2, "lease reserve takes a subnet, or one of each family"),
        (["reserve", "10.5.9.0/24", "nowhere"], 2, "'nowhere' is neither a subnet"),
        (["reserve", "10.5.9.0/24", "fd00::7"], 2, "an address of each family"),
        (["reserve", "10.5.9.0/24"], 1, "leased to nobody"),
        (["reserve", "10.5.9.0/25", "192.0.2.7"], 1, "no host would take 10.5.9.0/25: by"),
        (["reserve", "10.9.9.0/24", "192.0.2.7"], 1, "a host takes a /24 from 10.5.1.0 to 10.5.255.0"),
        (["reserve", "10.5.43.0/24", "192.0.2.7"], 1, "10.5.43.0-24 is held by 192.0.2.1"),
        (["list", "word"], 2, "unexpected 'word'"),
        (["list", "--colour"], 2, "unknown option --colour"),
    ],
)
def test_what_does_not_fit_is_one_line(place: Place, capsys: Any, words: list[str], code: int, message: str) -> None:
    place.ask(lambda store: store.set_config(CONFIG))
    place.lease(1)
    assert main(["lease", *words, *place.words]) == code
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), (out, err)
    assert message in err
    assert place.held() == ["10.5.43.0-24"]


def test_a_store_without_leases_of_its_own_to_give_says_so(filestore: None, capsys: Any) -> None:
    for command in (["list"], ["release", "10.5.43.0/24"], ["reserve", "10.5.43.0/24"]):
        assert main(["lease", *command, "--store=filed"]) == 1
        assert f"the store filed cannot {command[0]} leases" in capsys.readouterr().err
