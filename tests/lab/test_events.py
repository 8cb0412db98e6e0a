"""What an operator breaks, the agent tells: events, the status' summary, the metrics."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flannel_core.lab import Lab
from flannel_core.lab.hosts import Host
from flannel_core.lab.programs import FLANNELD

FLANNELCTL = FLANNELD.with_name("flannelctl")


def events(host: Host, *words: str) -> list[dict[str, Any]]:
    """What ``flannelctl events --json`` prints on the host."""
    found: list[dict[str, Any]] = json.loads(
        host.run(f"{FLANNELCTL} events --json --subnet-file {host.subnet_file} {' '.join(words)}")
    )
    return found


def repairs(host: Host) -> list[dict[str, Any]]:
    return [event for event in events(host) if event["action"] == "repair"]


def scraped(host: Host) -> dict[str, float]:
    """The metrics as Prometheus' own parser reads them, by name and labels."""
    status, page = host.http("/metrics")
    assert status == 200
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_a_route_that_an_operator_deletes_is_told_with_time_object_cause_and_port(lab: Lab) -> None:
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    [lease] = [lease for lease in a.store.leases().leases if b.subnet in lease.subnets]
    before = float(a.run("date +%s.%N"))
    a.run(f"ip route del {b.subnet}")
    (repair,) = lab.eventually(lambda: repairs(a))
    assert before < repair["time"] < float(a.run("date +%s.%N"))
    assert repair["object"] == f"route {b.subnet} via {b.subnet[0]} dev flannel.1 onlink"
    assert repair["cause"] == f"lease {lease.key} revision {lease.revision}"
    assert re.fullmatch(r"netlink port \d+, (gone|program unknown)|ip \(pid \d+\)", repair["by"])
    table = a.run(f"{FLANNELCTL} events --since 5m --subnet-file {a.subnet_file}")
    (line,) = [line for line in table.splitlines() if "  repair  " in line]
    assert line.endswith(repair["by"])


def test_who_still_runs_is_named_by_program_and_pid(lab: Lab) -> None:
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    command = ["ip", "netns", "exec", a.namespace, "ip", "-batch", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        program.stdin.write(f"route del {b.subnet}\n")
        program.stdin.flush()
        (repair,) = lab.eventually(lambda: repairs(a))
    assert repair["by"] == f"ip (pid {program.pid})"


def test_a_killed_agent_leaves_its_journal_and_the_next_one_goes_on_with_it(lab: Lab) -> None:
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    a.run(f"ip route del {b.subnet}")
    journal = a.directory / "journal.jsonl"
    lab.eventually(lambda: journal.exists() and '"action":"repair"' in journal.read_text())
    a.kill()
    (told,) = repairs(a)  # from the file
    with journal.open("a") as file:
        file.write('{"time":17')  # torn
    a.start()
    lab.wait_until_ready([a])
    assert repairs(a) == [told]
    a.run("ip link del flannel.1")
    lab.eventually(lambda: len(repairs(a)) > 1)
    summary = a.status().repairs
    assert summary is not None
    assert (told["object"], 2) in summary.objects  # once by itself, once with the device
    assert summary.count == sum(event.get("count", 1) for event in repairs(a))
    text = a.run(f"{FLANNELCTL} status --subnet-file {a.subnet_file}")
    assert f"\nrepaired {summary.count} times in the last hour: {told['object']} (2), " in text


def test_following_shows_what_happens_and_holds_up_no_end(lab: Lab) -> None:
    a, b = lab.hosts(2)
    lab.eventually(lambda: a.pings(b))
    command = [str(FLANNELCTL), "events", "--follow", "--json", "--subnet-file", str(a.subnet_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        first = json.loads(program.stdout.readline())
        assert first["action"] == "put"
        a.run(f"ip route del {b.subnet}")
        while (event := json.loads(program.stdout.readline()))["action"] != "repair":
            pass
        assert event["object"].startswith(f"route {b.subnet} ")
        assert a.stop() == 0
        assert "has ended" in program.communicate(timeout=5)[1]
    assert program.returncode == 1


def test_a_follower_ends_with_ctrl_c(lab: Lab) -> None:
    (a,) = lab.hosts(1)
    command = [str(FLANNELCTL), "events", "--follow", "--subnet-file", str(a.subnet_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        try:
            assert program.communicate(timeout=5)[1] == ""
        finally:
            program.kill()
    assert program.returncode == 130


@pytest.mark.drawn(1)
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_the_metrics_say_what_the_status_says(lab: Lab, backend: str) -> None:
    a, b, c = lab.hosts(3, backend=backend)
    a.restart(metrics=True)
    lab.wait_until_ready([a])
    a.run(f"ip route del {b.subnet}")
    lab.eventually(lambda: a.status().repairs.count == 1 and a.plan() == [])  # type: ignore[union-attr]
    found, status = scraped(a), a.status()
    assert found["flannel_build_info version=" + status.version] == 1
    assert found["flannel_ready"] == status.ready == 1
    assert found["flannel_problems"] == len(status.problems) == 0
    assert found["flannel_peers_wanted"] == len(status.peers) == 2
    assert found["flannel_peers_programmed"] == sum(peer.programmed for peer in status.peers) == 2
    assert found["flannel_peers_refused"] == len(status.refused) == 0
    assert found["flannel_repairs_total kind=route"] == 1
    assert found["flannel_repairs_total kind=link"] == 0
    assert found["flannel_writes_total"] == status.writes >= 1
    assert found["flannel_reconcile_duration_seconds_count"] >= 3
    assert (
        found["flannel_reconcile_duration_seconds_bucket le=+Inf"] == found["flannel_reconcile_duration_seconds_count"]
    )
    assert found["flannel_store_reachable"] == 1
    assert 0 <= found["flannel_store_answer_age_seconds"] < 300
    assert status.lease is not None
    assert status.lease.expires is not None
    assert 0 < found["flannel_lease_remaining_seconds"] <= 86400
    assert found["process_resident_memory_bytes"] > 0
    c.stop()
    c.store.release(c.subnet)
    lab.eventually(lambda: scraped(a)["flannel_peers_wanted"] == 1)


def test_an_agent_that_waits_for_its_configuration_has_metrics_too(lab: Lab) -> None:
    (a,) = lab.hosts(1, configured=False, started=False)
    a.start(metrics=True)
    found = lab.eventually(lambda: scraped(a))
    assert found["flannel_ready"] == 0
    assert found["flannel_problems"] == 1
    assert "flannel_lease_remaining_seconds" not in found


def test_without_the_option_there_are_no_metrics(lab: Lab) -> None:
    (a,) = lab.hosts(1)
    assert a.http("/metrics")[0] == 404
