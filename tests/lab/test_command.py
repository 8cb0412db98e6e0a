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
    return subprocess.run(
        [*prefix, FLANNELCTL, *words], capture_output=True, text=True, env=os.environ | (environment or {})
    )


def labs():
    return {found.id for found in record.records()}


def test_it_prints_a_table_of_pings_and_leaves_nothing():
    before = labs()
    done = flannelctl("lab")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ms") == 6
    assert "6 of 6 pings answered, vxlan on sqlite, ipv4" in done.stdout
    assert "starting 3 agents" in done.stderr
    assert labs() == before


def test_json_holds_every_ping_of_both_families():
    done = flannelctl("lab", "--hosts", "2", "--backend", "host-gw", "--family", "dual-stack", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["failure"] is None
    assert sorted((p["from"], p["to"], p["family"]) for p in said["pings"]) == [
        (a, b, family) for a, b in (("h1", "h2"), ("h2", "h1")) for family in (4, 6)
    ]
    assert all(ping["ms"] > 0 and ping["reason"] is None for ping in said["pings"])


def test_what_is_unreachable_is_an_exit_code_of_1_with_the_reason():
    done = flannelctl("lab", "--hosts", "2", "--backend", "alloc")
    assert done.returncode == 1
    assert "0 of 2 pings answered" in done.stdout
    assert "no answer" in done.stdout or "unreachable" in done.stdout
    assert "h1: ready" in done.stderr


def test_a_kept_lab_runs_on_until_it_is_cleaned():
    done = flannelctl("lab", "--hosts", "2", "--keep", "--json")
    said = json.loads(done.stdout)
    host = said["hosts"][0]
    try:
        assert said["kept"]
        status = flannelctl("status", "--json", "--subnet-file", host["subnet_file"])
        assert json.loads(status.stdout)["ready"]
        assert (NAMESPACES / host["pod"]).exists()
    finally:
        cleaned = flannelctl("lab", "clean")
    assert f"lab {said['id']} removed" in cleaned.stdout
    assert cleaned.returncode == 0
    assert list(NAMESPACES.glob(f"*{said['id']}*")) == []
    assert said["id"] not in labs()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_a_signal_removes_everything(number, code):
    before = labs()
    process = subprocess.Popen(
        [FLANNELCTL, "lab", "--hosts", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    heard = ""
    for line in process.stderr:
        heard += line
        if "starting 3 agents" in line:
            (identifier,) = labs() - before
            process.send_signal(number)
            break
    _, rest = process.communicate(timeout=20)
    assert process.returncode == code, heard + rest
    assert "Traceback" not in rest
    assert list(NAMESPACES.glob(f"*{identifier}*")) == []
    assert labs() == before


@pytest.mark.parametrize("words", [["--hosts", "3"], ["clean"]])
def test_without_root_it_says_what_to_do_before_it_starts(words):
    done = flannelctl("lab", *words, prefix=AS_NOBODY)
    assert done.returncode == 1
    assert "run it with sudo" in done.stderr
    assert "starting" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_everything_that_is_lacking_is_said_at_once():
    done = flannelctl("lab", "--backend", "ipsec", "--store", "paper", environment={"PATH": "/nowhere"})
    assert done.returncode == 1
    for lacking in ("'ipsec'", "'paper'", "apt install iproute2"):
        assert lacking in done.stderr


@pytest.mark.parametrize("words", [["--hosts", "0"], ["--hosts", "many"], ["--family", "ipx"], ["--hostz", "3"]])
def test_a_wrong_option_is_a_usage_error(words):
    done = flannelctl("lab", *words)
    assert done.returncode == 2
    assert words[0] in done.stderr
