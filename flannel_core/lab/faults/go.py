"""A host whose flanneld is exchanged in place, Go's for ours and ours for Go's."""

from __future__ import annotations

import time

from ..hosts import Host
from ..network import LabError
from ..programs import FLANNELD
from .scene import RESYNC_SECONDS, Case, Outcome, Scene, differences, expect_none_lost

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


CASES = (Case(ROW, ROW, _switched, stores=("etcd",), needs_go=True),)
