"""A host whose flanneld is exchanged in place, Go's for ours and ours for Go's."""

from __future__ import annotations

import time

from ..hosts import Host
from ..network import LabError
from ..programs import FLANNELD
from .scene import BACK_SECONDS, RESYNC_SECONDS, Case, Outcome, Scene, differences, expect_none_lost
from .store import UNTRUSTED, keys_refused, untrusted, write_entry

ROW = "a host switched in place from Go to ours and back, --ip-masq"
SHOWN = "sh -c 'iptables -S; iptables -t nat -S; ip6tables -S; ip6tables -t nat -S; nft -s list ruleset'"
"""What upstream's own checks look at."""


def rules(host: Host) -> str:
    return "\n".join(line for line in host.run(SHOWN).splitlines() if not line.startswith("#"))


def _switched(scene: Scene) -> Outcome:
    """``b`` runs ours all the time. ``a`` begins with Go's on a host that had no rules; it forwards by itself, because
    Go takes its rules away for a moment whenever it starts."""
    a, go = scene.a, scene.go
    assert go is not None
    a.stop()
    a.run("nft flush ruleset")
    a.runs(go)
    a.start()
    scene.lab.wait_until_ready([a])
    scene.wait_until_settled()
    made_by_go = scene.lab.eventually(lambda: rules(a))
    slowest = 0.0
    with scene.pinging() as pings:
        scene.ping_some(pings)
        for program in (FLANNELD, go, FLANNELD):
            a.stop()
            a.runs(program)
            began = time.monotonic()
            a.start()
            scene.lab.wait_until_ready([a])
            scene.wait_until_settled()
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(RESYNC_SECONDS)  # whatever either does to rules from time to time
            if changed := differences(made_by_go, rules(a)):
                raise LabError("\n".join([f"the rules of {program} are not those of Go:", *changed]))
            scene.ping_some(pings)
    expect_none_lost(pings)
    return Outcome(slowest, 0, pings.sent)


def _untrusted_beside(scene: Scene) -> Outcome:
    """A third host runs Go's, which believes much of it, and loses peers by it; but it runs, and so do ours."""
    a, b, third = scene.hosts
    assert scene.go is not None
    third.runs(scene.go)
    third.start()
    scene.lab.wait_until_ready([third])
    scene.wait_until_settled()
    entries = list(untrusted(scene))
    with scene.pinging() as pings:
        scene.ping_some(pings)
        for key, value, _ in entries:
            write_entry(scene, key, value)
        expected = sorted(key for key, _, _ in entries)
        seconds = scene.seconds_until(lambda: keys_refused(a) == expected, BACK_SECONDS)
        for key, _, _ in entries:
            write_entry(scene, key, None)
        scene.lab.eventually(lambda: not a.status().refused and not b.status().refused, BACK_SECONDS)
        scene.ping_some(pings)
    expect_none_lost(pings)
    if not (a.ready() and b.ready() and third.ready()):
        raise LabError("\n".join(host.explain() for host in scene.hosts))
    return Outcome(seconds, 0, pings.sent)


CASES = (
    Case(ROW, ROW, _switched, stores=("etcd",), needs_go=True),
    Case(UNTRUSTED, "beside Go", _untrusted_beside, stores=("etcd",), hosts=3, started=2, needs_go=True),
)
