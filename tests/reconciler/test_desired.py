"""Who wants what, and who has his way."""

from __future__ import annotations

from typing import Any

from flannel_core.objects import Route
from flannel_core.reconciler.desired import Desired, WantedIdentities
from flannel_core.reconciler.picture import Picture
from flannel_core.target import Failure

A = Route("10.5.2.0/24", "flannel.1", gateway="10.5.2.0", onlink=True)
A_OTHERWISE = Route("10.5.2.0/24", "eth0", gateway="192.0.2.2")
B = Route("10.5.3.0/24", "flannel.1", gateway="10.5.3.0", onlink=True)


def test_wanting_the_same_again_changes_nothing() -> None:
    desired = Desired()
    assert desired.replace("peer", [A, B], "revision 1") == [A.identity, B.identity]
    assert desired.replace("peer", [A, B], "revision 2") == []
    claim = desired.get(A.identity)
    assert claim is not None
    assert desired.cause(claim) == "revision 2"


def test_what_an_owner_no_longer_mentions_is_no_longer_wanted() -> None:
    desired = Desired()
    desired.replace("peer", [A, B], "")
    assert desired.replace("peer", [B], "") == [A.identity]
    assert desired.get(A.identity) is None
    assert desired.remove("peer") == [B.identity]
    assert desired.owners() == []


def test_two_owners_share_an_object_until_the_last_is_gone() -> None:
    desired = Desired()
    desired.replace("first", [A], "1")
    assert desired.replace("second", [A], "2") == []
    assert desired.contested("second") == []
    assert desired.remove("first") == []
    claim = desired.get(A.identity)
    assert claim is not None
    assert (claim.owner, desired.cause(claim)) == ("second", "2")
    assert desired.remove("second") == [A.identity]


def test_of_two_that_disagree_the_first_has_its_way_and_the_other_is_told_who_that_is() -> None:
    desired = Desired()
    desired.replace("first", [A], "")
    assert desired.replace("second", [A_OTHERWISE, B], "") == [B.identity]
    assert desired.contested("first") == []
    assert desired.contested("second") == [Failure(A_OTHERWISE, f"first was first and wants {A.describe()}")]
    assert desired.all_contested() == desired.contested("second")


def test_the_second_has_its_way_once_the_first_is_gone() -> None:
    desired = Desired()
    desired.replace("first", [A], "")
    desired.replace("second", [A_OTHERWISE], "")
    assert desired.remove("first") == [A.identity]
    claim = desired.get(A.identity)
    assert claim is not None
    assert claim.object == A_OTHERWISE
    assert desired.contested("second") == []


def test_the_first_may_change_its_mind_and_stays_the_first() -> None:
    desired = Desired()
    desired.replace("first", [A], "")
    desired.replace("second", [A], "")
    assert desired.replace("first", [A_OTHERWISE], "") == [A.identity]
    assert [failure.object for failure in desired.contested("second")] == [A]


def test_the_second_may_leave_without_the_first_noticing() -> None:
    desired = Desired()
    desired.replace("first", [A], "")
    desired.replace("second", [A_OTHERWISE], "")
    assert desired.replace("second", [], "") == []
    assert desired.remove("second") == []
    assert desired.contested("second") == []


def test_wanted_identities_keep_in_step() -> None:
    desired = Desired()
    wanted, others = WantedIdentities(desired, ["route"]), WantedIdentities(desired, ["link"])
    assert A.identity not in wanted
    desired.replace("peer", [A, B], "")
    assert (list(wanted), len(wanted), list(others)) == ([A.identity, B.identity], 2, [])
    assert A.identity in wanted
    assert A.identity not in others


def test_what_is_as_wanted_is_kept_once_in_memory() -> None:
    picture = Picture(["route"])
    picture.desired.replace("peer", [A, B], "")
    picture.learn(["route"], None).take(Route(A.destination, A.device, gateway=A.gateway, onlink=True))
    claim = picture.desired.get(A.identity)
    assert claim is not None
    ((identity, found),) = picture.actual["route"].items()
    assert found is A
    assert identity is claim.identity


async def test_a_disagreement_is_in_the_state_of_the_one_that_lost(world: Any) -> None:
    world.want_local()
    world.want_peer(2)
    world.reconciler.want("late", [world.route(2, via="10.5.9.9")], "another lease")
    await world.reconciler.settle()
    assert world.target.has(world.route(2))
    assert world.reconciler.state("peer 2").failures == ()
    (failure,) = world.reconciler.state("late").failures
    assert "peer 2 was first" in failure.reason
    assert world.reconciler.failures() == [failure]
    world.reconciler.unwant("peer 2")
    await world.reconciler.settle()
    assert world.target.has(world.route(2, via="10.5.9.9"))
    assert world.reconciler.failures() == []
    assert world.reconciler.owners() == ["local", "late"]
