"""A host of a real cluster, with --ip-masq: its flanneld is exchanged in place, and its rules are those that Go made."""

import pytest

from flannel_core.lab.faults import Stage, go

[SWITCHED] = go.CASES


@pytest.mark.parametrize("combination", SWITCHED.combinations, ids=str)
def test_a_host_switched_from_go_to_ours_and_back_keeps_its_rules_and_loses_no_packet(go_flanneld, combination):
    with Stage(outage=1.0, go=go_flanneld) as stage:
        outcome = stage.play(SWITCHED, combination)
    assert outcome.sent > 1000
    assert outcome.lost == 0
