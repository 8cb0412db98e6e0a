"""Whatever goes wrong, in whatever order: all is as a fresh agent would have it in the end, and nobody else's touched.

`make simulate` plays a thousand sequences in memory and a hundred in namespaces; here are a few of them, from
FLANNEL_TEST_SEED on. A sequence that ends otherwise prints its seed and its steps.
"""

import logging
import os

import pytest

from flannel_core.lab import Lab
from flannel_core.lab.faults import sequence
from flannel_core.lab.simulation.sequences import WrongEnd, simulate
from flannel_core.reconciler.reading import Reader
from flannel_core.target import Unknown

SEED = int(os.environ["FLANNEL_TEST_SEED"])


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The agents say a lot about what goes wrong."""
    caplog.set_level(logging.CRITICAL, "flannel_core")


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_sequences_in_memory_end_as_they_have_to(first):
    for seed in range(SEED + first, SEED + first + 10):
        assert simulate(seed) >= 0


def test_random_sequences_on_real_hosts_end_as_they_have_to():
    print(f"FLANNEL_TEST_SEED={SEED}")
    with Lab() as lab:
        scene = sequence.prepare(lab, SEED)
        for seed in range(SEED, SEED + 3):
            assert sequence.play(scene, seed)


def test_the_same_seed_is_the_same_sequence(monkeypatch):
    monkeypatch.setattr(Reader, "hear", lambda self, target, news: None)
    reports = []
    for _ in range(2):
        with pytest.raises(WrongEnd) as wrong:
            simulate_until_wrong()
        reports.append(str(wrong.value))
    assert reports[0] == reports[1]


def simulate_until_wrong():
    for seed in range(100):
        simulate(seed)


@pytest.mark.parametrize("deaf", ["to everything", "to devices"])
def test_an_agent_that_is_deaf_is_found_out(monkeypatch, deaf):
    hear = Reader.hear

    def hear_less(self, target, news):
        if deaf == "to devices" and not (isinstance(news, Unknown) and news.devices):
            hear(self, target, news)

    monkeypatch.setattr(Reader, "hear", hear_less)
    with pytest.raises(WrongEnd, match="not done within 5"):
        simulate_until_wrong()


def test_an_agent_that_takes_what_is_not_its_own_is_found_out(monkeypatch):
    monkeypatch.setattr("flannel_core.netlink.ours.Ours.route", lambda self, route: True)
    with pytest.raises(WrongEnd, match="touched: route"):
        simulate(0)
