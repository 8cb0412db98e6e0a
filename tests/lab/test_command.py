"""``flannelctl lab``, as a person runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flannel_core.lab import record
from flannel_core.lab.network import NAMESPACES

FLANNELCTL = Path(sys.executable).parent / "flannelctl"
# Not root, but able to read a checkout under /root.
CAPABILITIES = "-all,+dac_read_search"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"]  # fmt: skip


def flannelctl(*words, prefix=(), environment=None):
    """What it printed and ended with, and which process it was."""
    process = subprocess.Popen(
        [*prefix, FLANNELCTL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    process.output, process.errors = process.communicate()
    return process


def labs(process):
    """Those that this process made; others may be at work on this machine."""
    return {found.id for found in record.records() if found.pid == process.pid}


def test_it_prints_a_table_of_pings_and_leaves_nothing():
    done = flannelctl("lab")
    assert done.returncode == 0, done.errors
    assert done.output.count(" ms") == 6
    assert "6 of 6 pings answered, vxlan on sqlite, ipv4" in done.output
    assert "starting 3 agents" in done.errors
    assert labs(done) == set()


def test_json_holds_every_ping_of_both_families():
    done = flannelctl("lab", "--hosts", "2", "--backend", "host-gw", "--family", "dual-stack", "--json")
    assert done.returncode == 0, done.errors
    said = json.loads(done.output)
    assert said["failure"] is None
    assert sorted((p["from"], p["to"], p["family"]) for p in said["pings"]) == [
        (a, b, family) for a, b in (("h1", "h2"), ("h2", "h1")) for family in (4, 6)
    ]
    assert all(ping["ms"] > 0 and ping["reason"] is None for ping in said["pings"])


def test_what_is_unreachable_is_an_exit_code_of_1_with_the_reason():
    done = flannelctl("lab", "--hosts", "2", "--backend", "alloc")
    assert done.returncode == 1
    assert "0 of 2 pings answered" in done.output
    assert "no answer" in done.output or "unreachable" in done.output
    assert "h1: ready" in done.errors


def test_a_kept_lab_runs_on_until_it_is_cleaned():
    done = flannelctl("lab", "--hosts", "2", "--keep", "--json")
    said = json.loads(done.output)
    host = said["hosts"][0]
    try:
        assert said["kept"]
        status = flannelctl("status", "--json", "--subnet-file", host["subnet_file"])
        assert json.loads(status.output)["ready"]
        assert (NAMESPACES / host["pod"]).exists()
    finally:
        cleaned = flannelctl("lab", "clean")
    assert f"lab {said['id']} removed" in cleaned.output
    assert cleaned.returncode == 0
    assert list(NAMESPACES.glob(f"*{said['id']}*")) == []
    assert labs(done) == set()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_a_signal_removes_everything(number, code):
    process = subprocess.Popen(
        [FLANNELCTL, "lab", "--hosts", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    heard = ""
    for line in process.stderr:
        heard += line
        if "starting 3 agents" in line:
            (identifier,) = labs(process)
            process.send_signal(number)
            break
    _, rest = process.communicate(timeout=20)
    assert process.returncode == code, heard + rest
    assert "Traceback" not in rest
    assert list(NAMESPACES.glob(f"*{identifier}*")) == []
    assert labs(process) == set()


@pytest.mark.parametrize("words", [["--hosts", "3"], ["clean"]])
def test_without_root_it_says_what_to_do_before_it_starts(words):
    done = flannelctl("lab", *words, prefix=AS_NOBODY)
    assert done.returncode == 1
    assert "run it with sudo" in done.errors
    assert "starting" not in done.errors
    assert len(done.errors.splitlines()) == 1


def test_everything_that_is_lacking_is_said_at_once():
    done = flannelctl("lab", "--backend", "ipsec", "--store", "paper", environment={"PATH": "/nowhere"})
    assert done.returncode == 1
    for lacking in ("'ipsec'", "'paper'", "apt install iproute2"):
        assert lacking in done.errors


@pytest.mark.parametrize("words", [["--hosts", "0"], ["--hosts", "many"], ["--family", "ipx"], ["--hostz", "3"]])
def test_a_wrong_option_is_a_usage_error(words):
    done = flannelctl("lab", *words)
    assert done.returncode == 2
    assert words[0] in done.errors
