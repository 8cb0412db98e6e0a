"""The sysctl target: on the /proc/sys of a namespace, and on folders where one must go wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flannel_core.objects import Object, Sysctl
from flannel_core.sysctl import SysctlTarget
from flannel_core.target import Actual, Failure, Put, Scope

FORWARD = Sysctl("net/ipv4/ip_forward", "1")
RA = Sysctl("net/ipv6/conf/flannel.1/accept_ra", "0", device="flannel.1", optional=True)


def scope(*wanted: Object, only: frozenset[str] | None = None) -> Scope:
    return Scope(wanted=frozenset(item.identity for item in wanted), only=only)


def write(target: SysctlTarget, *wanted: Object) -> list[Failure]:
    return asyncio.run(target.write([Put(item) for item in wanted], []))


def read(target: SysctlTarget, *wanted: Object, only: frozenset[str] | None = None) -> list[Actual]:
    return asyncio.run(target.read(scope(*wanted, only=only)))


def test_a_value_is_written_and_read_back(host: Any) -> None:
    def scenario() -> tuple[list[Actual], list[Failure], list[Actual]]:
        target = SysctlTarget()
        return read(target, FORWARD), write(target, FORWARD), read(target, FORWARD)

    before, failures, after = host.call(scenario)
    assert before == [Actual(Sysctl("net/ipv4/ip_forward", "0"))]
    assert failures == []
    assert [FORWARD.satisfied_by(actual.object) for actual in after] == [True]
    assert host.command("sysctl -n net.ipv4.ip_forward") == "1\n"


def test_nothing_is_read_that_is_not_wanted(host: Any) -> None:
    assert host.call(lambda: read(SysctlTarget())) == []


def test_values_of_several_words_compare_whatever_the_white_space(tmp_path: Path) -> None:
    (tmp_path / "tcp_rmem").write_text("4096\t131072\t6291456\n")
    (actual,) = read(SysctlTarget(tmp_path), Sysctl("tcp_rmem", ""))
    assert Sysctl("tcp_rmem", "4096 131072 6291456").satisfied_by(actual.object)


def test_only_the_sysctls_of_a_device_are_read_for_it(host: Any) -> None:
    host.ip("link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472")
    found = host.call(lambda: read(SysctlTarget(), FORWARD, RA, only=frozenset({"flannel.1"})))
    assert [actual.object.identity for actual in found] == [RA.identity]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Sysctl("net/bridge/bridge-nf-call-iptables", "1"), "a kernel module that brings it is not loaded"),
        (Sysctl("net/ipv6/conf/flannel.1/accept_ra", "0", device="flannel.1"), "the device flannel.1 is gone"),
    ],
)
def test_a_missing_one_is_a_failure_that_names_the_file(tmp_path: Path, wanted: Sysctl, reason: str) -> None:
    target = SysctlTarget(tmp_path)
    assert read(target, wanted) == []
    (failure,) = write(target, wanted)
    assert failure.object == wanted
    assert str(tmp_path / wanted.name) in failure.reason
    assert reason in failure.reason
    assert not (tmp_path / wanted.name).exists()


def test_a_value_that_the_kernel_refuses_is_a_failure_with_the_cure(host: Any) -> None:
    wanted = Sysctl("net/ipv4/ip_forward", "many")
    (failure,) = host.call(lambda: write(SysctlTarget(), wanted))
    assert "/proc/sys/net/ipv4/ip_forward cannot be set to many (Invalid argument)" in failure.reason
    assert "`sysctl -w net.ipv4.ip_forward=many`" in failure.reason


def test_one_failure_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("0\n")
    failures = write(SysctlTarget(tmp_path), Sysctl("missing", "1"), Sysctl("good", "1"))
    assert [failure.object.identity for failure in failures] == [("sysctl", "missing")]
    assert (tmp_path / "good").read_text().strip() == "1"


def test_an_optional_one_that_is_missing_counts_as_satisfied_until_it_appears(tmp_path: Path) -> None:
    target = SysctlTarget(tmp_path)
    wanted = Sysctl("accept_ra", "0", optional=True)
    assert read(target, wanted) == []
    assert write(target, wanted) == []
    (actual,) = read(target, wanted)
    assert wanted.satisfied_by(actual.object)
    assert actual.facts is not None
    assert (actual.facts["value"], "does not exist" in actual.facts["unset"]) == (None, True)
    (tmp_path / "accept_ra").write_text("1\n")
    assert read(target, wanted) == [Actual(Sysctl("accept_ra", "1"))]
    assert write(target, wanted) == []
    assert read(target, wanted) == [Actual(Sysctl("accept_ra", "0"))]


def test_another_value_for_an_optional_one_is_tried_again(tmp_path: Path) -> None:
    target = SysctlTarget(tmp_path)
    write(target, Sysctl("accept_ra", "0", optional=True))
    other = Sysctl("accept_ra", "2", optional=True)
    (actual,) = read(target, other)
    assert not other.satisfied_by(actual.object)


READ_ONLY = """
import asyncio
from flannel_core.objects import Sysctl
from flannel_core.sysctl import SysctlTarget
from flannel_core.target import Put, Scope
async def main():
    target = SysctlTarget()
    for optional in (False, True):
        wanted = Sysctl("net/ipv4/ip_forward", "1", optional=optional)
        for failure in await target.write([Put(wanted)], []):
            print("failure:", failure.reason)
    for actual in await target.read(Scope(wanted=frozenset({wanted.identity}))):
        print("satisfied:", wanted.satisfied_by(actual.object), actual.facts)
asyncio.run(main())
"""


def test_a_read_only_proc_fails_what_must_be_and_passes_what_may_be(host: Any) -> None:
    mount = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
    done = subprocess.run(
        ["ip", "netns", "exec", host.name, "unshare", "-m", "sh", "-c", f"{mount} && exec {sys.executable} -"],
        input=READ_ONLY,
        capture_output=True,
        text=True,
        check=True,
    )
    failure, satisfied = done.stdout.splitlines()
    assert failure == (
        "failure: /proc/sys/net/ipv4/ip_forward cannot be set to 1 (Read-only file system):"
        " set it on the host, `sysctl -w net.ipv4.ip_forward=1`"
    )
    assert satisfied.startswith("satisfied: True {'value': '0'")


# --- one after the other -------------------------------------------------------------------------------------------

GUARD = Sysctl("eth0.7/accept_ra", "2", optional=True)
GUARDED = Sysctl("forwarding", "1", optional=True, after=(("eth0.7/accept_ra", "2"),))


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "eth0.7").mkdir()
    (tmp_path / "eth0.7/accept_ra").write_text("1\n")
    (tmp_path / "forwarding").write_text("0\n")
    return tmp_path


def test_what_has_to_stand_first_is_written_first(settings: Path) -> None:
    assert write(SysctlTarget(settings), GUARDED, GUARD) == []
    assert (settings / "eth0.7/accept_ra").read_text().split() == ["2"]
    assert (settings / "forwarding").read_text().split() == ["1"]


def test_without_it_the_other_is_not_set_until_it_stands(settings: Path) -> None:
    target = SysctlTarget(settings)
    assert write(target, GUARDED) == []
    assert (settings / "forwarding").read_text() == "0\n"
    (actual,) = read(target, GUARDED)
    assert GUARDED.satisfied_by(actual.object)
    reason = f"{settings}/forwarding is not set before {settings}/eth0.7/accept_ra is 2"
    assert actual.facts == {"value": "0", "unset": reason}
    (settings / "eth0.7/accept_ra").write_text("2\n")
    (actual,) = read(target, GUARDED)
    assert not GUARDED.satisfied_by(actual.object)
    write(target, GUARDED)
    assert (settings / "forwarding").read_text().split() == ["1"]


def test_a_device_that_is_gone_stands_in_nobodys_way(settings: Path) -> None:
    (settings / "eth0.7/accept_ra").unlink()
    write(SysctlTarget(settings), GUARDED)
    assert (settings / "forwarding").read_text().split() == ["1"]


def test_a_device_with_a_dot_is_spelled_as_sysctl_reads_it(host: Any) -> None:
    host.ip("link add eth0.7 type veth peer name cable.7")
    wanted = Sysctl("net/ipv6/conf/eth0.7/accept_ra", "2")
    host.command(f"sysctl -w {wanted.dotted}=2")
    assert host.call(lambda: read(SysctlTarget(), wanted)) == [Actual(wanted)]
