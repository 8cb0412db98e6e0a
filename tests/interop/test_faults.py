"""What the table of `make faults` has beside Go flannel: see flannel_core/lab/faults/go.py."""

import pytest

from flannel_core.lab.faults import Stage, go, store


def of(row):
    """Each case of ``row`` in each of its combinations."""
    pairs = [(case, each) for case in go.CASES if case.row == row for each in case.combinations]
    return pytest.mark.parametrize(("case", "combination"), pairs, ids=str)


@of(go.ROW)
def test_a_host_switched_from_go_to_ours_and_back_keeps_its_rules_and_loses_no_packet(go_flanneld, case, combination):
    with Stage(outage=1.0, go=go_flanneld) as stage:
        assert stage.play(case, combination).lost == 0


@of(store.UNTRUSTED)
def test_leases_that_cannot_be_trusted_end_no_agent_of_either_kind(go_flanneld, case, combination):
    with Stage(outage=1.0, go=go_flanneld) as stage:
        assert stage.play(case, combination).lost == 0
