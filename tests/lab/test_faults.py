"""Nothing that an operator breaks stays broken: each line of the table that `make faults` prints, once.

In which combination of backend, store and firewall, and in which family, is drawn from FLANNEL_TEST_SEED.
"""

import os
import random

import pytest

from flannel_core.lab.faults import CASES, Stage, agent, firewall, host, kernel, kubernetes, store

SEED = os.environ["FLANNEL_TEST_SEED"]
OUTAGE_SECONDS = 1.0


@pytest.fixture(scope="module")
def stage():
    with Stage(OUTAGE_SECONDS) as the_stage:
        yield the_stage


def of(row):
    """Parametrizes a test with each case of ``row``, in one family and combination. A failure prints the seed."""
    drawn = []
    cases = [case for case in CASES if case.row == row and not case.needs_go]
    for name in dict.fromkeys(case.name for case in cases):
        choice = random.Random(f"{SEED} {name}")
        case = choice.choice([case for case in cases if case.name == name])
        drawn.append((case, choice.choice(case.combinations)))
    drawn.sort(key=lambda pair: str(pair[1]))  # those of one combination share their hosts
    return pytest.mark.parametrize(
        ("case", "combination"), drawn, ids=[f"{case.name} ({'|'.join(case.firewalls)})" for case, _ in drawn]
    )


@pytest.fixture(autouse=True)
def seed(case, combination):
    print(f"FLANNEL_TEST_SEED={SEED}: {case} ({combination})")


@of(kernel.ROW)
def test_what_is_taken_from_the_kernel_is_back_within_5_s(stage, case, combination):
    assert stage.play(case, combination).seconds < 5


@of(firewall.ROW)
def test_traffic_rules_are_back_within_the_resync_period(stage, case, combination):
    assert stage.play(case, combination).seconds < firewall.RESYNC_SECONDS + firewall.TOOLS_SECONDS


@of(host.ROW)
def test_a_changed_interface_is_followed_within_5_s_and_the_lease_stays(stage, case, combination):
    assert stage.play(case, combination).seconds < 5


@of(agent.DEAD)
def test_what_changed_while_an_agent_was_dead_is_right_within_1_s_of_its_start(stage, case, combination):
    assert stage.play(case, combination).seconds < 1


@of(store.AWAY)
def test_no_packet_and_no_lease_is_lost_while_etcd_fails(stage, case, combination):
    assert stage.play(case, combination).lost == 0


@of(kubernetes.AWAY)
def test_no_packet_is_lost_and_no_storm_breaks_loose_while_the_api_server_fails(stage, case, combination):
    outcome = stage.play(case, combination)
    print(outcome.said)
    assert outcome.lost == 0


@of(store.UNTRUSTED)
def test_leases_that_cannot_be_trusted_are_named_and_harm_nobody(stage, case, combination):
    assert stage.play(case, combination).lost == 0


@of(agent.FIGHT)
def test_who_keeps_deleting_a_route_is_held_off_and_named(stage, case, combination):
    assert "CPU" in stage.play(case, combination).said


@of(agent.RESTART)
def test_a_restart_under_1000_packets_a_second_loses_none(stage, case, combination):
    assert stage.play(case, combination).lost == 0
