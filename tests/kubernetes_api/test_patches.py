"""What a patch changes, what it may not, and through which of the two doors of a node."""

from __future__ import annotations

from typing import Any

import pytest

from flannel_core.lab.kubernetes.client import Client
from flannel_core.lab.kubernetes.requests import JSON_MERGE, STRATEGIC_MERGE

READY = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no network"}
DISK = {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure", "message": "enough"}
FLANNEL = {"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp", "message": "it runs"}


def conditions(node: Any) -> list[tuple[str, str]]:
    """Type and status, in order."""
    return [(condition["type"], condition["status"]) for condition in node["status"]["conditions"]]


@pytest.fixture
def n1(admin: Client) -> Any:
    """A node with two conditions and an annotation."""
    return admin.create(
        {
            "metadata": {"name": "n1", "annotations": {"kept": "as it was"}},
            "spec": {"podCIDRs": ["10.5.1.0/24"]},
            "status": {"conditions": [READY, DISK]},
        }
    )


@pytest.mark.usefixtures("n1")
@pytest.mark.parametrize("subresource", ["", "status"])
@pytest.mark.parametrize("content_type", [STRATEGIC_MERGE, JSON_MERGE])
def test_annotations_are_added_through_either_door(admin: Client, content_type: str, subresource: str) -> None:
    answer = admin.patch("n1", {"metadata": {"annotations": {"new": "1"}}}, content_type, subresource)
    assert answer.code == 200
    assert answer.value["metadata"]["annotations"] == {"kept": "as it was", "new": "1"}
    assert admin.node("n1") == answer.value


@pytest.mark.usefixtures("n1")
@pytest.mark.parametrize("content_type", [STRATEGIC_MERGE, JSON_MERGE])
def test_null_removes(admin: Client, content_type: str) -> None:
    answer = admin.patch("n1", {"metadata": {"annotations": {"kept": None, "never": None}}}, content_type)
    assert "annotations" not in answer.value["metadata"]


def test_the_status_is_not_changed_through_the_node(admin: Client, n1: Any) -> None:
    answer = admin.patch("n1", {"status": {"conditions": [FLANNEL]}})
    assert answer.code == 200
    assert answer.value["status"] == n1["status"]


def test_the_spec_is_not_changed_through_the_status(admin: Client, n1: Any) -> None:
    answer = admin.patch("n1", {"spec": {"unschedulable": True}}, subresource="status")
    assert answer.code == 200
    assert answer.value["spec"] == n1["spec"]
    assert admin.patch("n1", {"spec": {"unschedulable": True}}).value["spec"]["unschedulable"] is True


@pytest.mark.usefixtures("n1")
def test_a_new_condition_stands_before_those_that_the_patch_does_not_name(admin: Client) -> None:
    answer = admin.patch("n1", {"status": {"conditions": [FLANNEL]}}, subresource="status")
    assert conditions(answer.value) == [("NetworkUnavailable", "False"), ("Ready", "False"), ("DiskPressure", "False")]


@pytest.mark.usefixtures("n1")
def test_a_condition_of_the_same_type_is_merged_in_its_place(admin: Client) -> None:
    answer = admin.patch(
        "n1", {"status": {"conditions": [{"type": "DiskPressure", "status": "True"}]}}, subresource="status"
    )
    assert conditions(answer.value) == [("Ready", "False"), ("DiskPressure", "True")]
    assert answer.value["status"]["conditions"][1]["reason"] == DISK["reason"]


@pytest.mark.usefixtures("n1")
@pytest.mark.parametrize(
    ("patch", "left"),
    [
        ([FLANNEL, {**DISK, "status": "True"}], ["NetworkUnavailable", "Ready", "DiskPressure"]),
        ([{**DISK, "status": "True"}, FLANNEL], ["Ready", "DiskPressure", "NetworkUnavailable"]),
        ([{**DISK, "status": "True"}, {**READY, "status": "True"}], ["DiskPressure", "Ready"]),
        ([{"type": "Ready", "$patch": "delete"}], ["DiskPressure"]),
        ([{"$patch": "replace"}, FLANNEL], ["NetworkUnavailable"]),
        ([], ["Ready", "DiskPressure"]),
    ],
)
def test_which_conditions_are_left_and_in_which_order(admin: Client, patch: list[Any], left: list[str]) -> None:
    answer = admin.patch("n1", {"status": {"conditions": patch}}, subresource="status")
    assert [name for name, _ in conditions(answer.value)] == left


@pytest.mark.usefixtures("n1")
def test_an_order_that_the_patch_gives_is_kept(admin: Client) -> None:
    order = [{"type": "DiskPressure"}, {"type": "NetworkUnavailable"}, {"type": "Ready"}]
    patch = {"status": {"$setElementOrder/conditions": order, "conditions": [FLANNEL]}}
    answer = admin.patch("n1", patch, subresource="status")
    assert answer.code == 200
    assert [name for name, _ in conditions(answer.value)] == ["DiskPressure", "NetworkUnavailable", "Ready"]


@pytest.mark.usefixtures("n1")
def test_a_json_merge_patch_replaces_all_conditions(admin: Client) -> None:
    answer = admin.patch("n1", {"status": {"conditions": [FLANNEL]}}, JSON_MERGE, "status")
    assert conditions(answer.value) == [("NetworkUnavailable", "False")]


@pytest.mark.usefixtures("n1")
def test_a_condition_without_its_type_is_refused(admin: Client) -> None:
    answer = admin.patch("n1", {"status": {"conditions": [{"status": "True"}]}}, subresource="status")
    assert answer.code == 500
    assert "does not contain declared merge key: type" in answer.value["message"]


@pytest.mark.usefixtures("n1")
def test_all_annotations_are_replaced_by_a_directive(admin: Client) -> None:
    patch = {"metadata": {"annotations": {"$patch": "replace", "only": "1"}}}
    assert admin.patch("n1", patch).value["metadata"]["annotations"] == {"only": "1"}


@pytest.mark.parametrize("content_type", [STRATEGIC_MERGE, JSON_MERGE])
@pytest.mark.parametrize("patch", [{}, {"metadata": {"annotations": {"kept": "as it was"}}}])
def test_a_patch_that_changes_nothing_takes_no_version(
    admin: Client, n1: Any, patch: dict[str, Any], content_type: str
) -> None:
    assert (
        admin.patch("n1", patch, content_type).value["metadata"]["resourceVersion"]
        == (n1["metadata"]["resourceVersion"])
    )


@pytest.mark.parametrize("content_type", [STRATEGIC_MERGE, JSON_MERGE])
def test_a_patch_of_an_older_version_is_a_conflict(admin: Client, n1: Any, content_type: str) -> None:
    def patch(text: str) -> dict[str, Any]:
        version = n1["metadata"]["resourceVersion"]
        return {"metadata": {"resourceVersion": version, "annotations": {"new": text}}}

    assert admin.patch("n1", patch("first"), content_type).code == 200
    answer = admin.patch("n1", patch("second"), content_type)
    assert (answer.code, answer.value["reason"]) == (409, "Conflict")
    assert answer.value["message"] == (
        'Operation cannot be fulfilled on nodes "n1": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert answer.value["details"] == {"name": "n1", "kind": "nodes"}
    assert admin.node("n1")["metadata"]["annotations"]["new"] == "first"


@pytest.mark.usefixtures("n1")
def test_a_patch_gives_no_other_name(admin: Client) -> None:
    answer = admin.patch("n1", {"metadata": {"name": "n2"}})
    assert (answer.code, answer.value["reason"]) == (400, "BadRequest")
    assert answer.value["message"] == "the name of the object (n2) does not match the name on the URL (n1)"


def test_identity_and_age_stay(admin: Client, n1: Any) -> None:
    answer = admin.patch("n1", {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}})
    assert answer.value["metadata"]["creationTimestamp"] == n1["metadata"]["creationTimestamp"]


def test_a_pod_cidr_is_given_once(admin: Client) -> None:
    admin.create({"metadata": {"name": "n2"}})
    given = admin.patch("n2", {"spec": {"podCIDR": "10.5.2.0/24", "podCIDRs": ["10.5.2.0/24"]}})
    assert (given.code, given.value["spec"]["podCIDRs"]) == (200, ["10.5.2.0/24"])
    answer = admin.patch("n2", {"spec": {"podCIDR": "10.5.3.0/24", "podCIDRs": ["10.5.3.0/24"]}}, JSON_MERGE)
    assert (answer.code, answer.value["reason"]) == (422, "Invalid")
    assert answer.value["message"] == (
        'Node "n2" is invalid: spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
    )


@pytest.mark.usefixtures("n1")
def test_an_annotation_is_a_string(admin: Client) -> None:
    answer = admin.patch("n1", {"metadata": {"annotations": {"new": 1}}})
    assert (answer.code, answer.value["reason"]) == (422, "Invalid")
    assert admin.node("n1")["metadata"]["annotations"] == {"kept": "as it was"}


@pytest.mark.usefixtures("n1")
@pytest.mark.parametrize(("body", "code"), [(b"{", 400), (b"[]", 400), (b"", 400), (b'"text"', 400)])
def test_a_patch_that_is_no_object_is_refused(admin: Client, body: bytes, code: int) -> None:
    answer = admin.ask("/api/v1/nodes/n1", "PATCH", body, STRATEGIC_MERGE)
    assert (answer.code, answer.value["kind"]) == (code, "Status")


@pytest.mark.usefixtures("n1")
@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/x-yaml"])
def test_a_patch_of_another_kind_is_refused(admin: Client, content_type: str) -> None:
    answer = admin.ask("/api/v1/nodes/n1", "PATCH", {}, content_type)
    assert (answer.code, answer.value["reason"]) == (415, "UnsupportedMediaType")
    assert (answer.value["message"], answer.value["details"]) == ("415: Unsupported Media Type", {})
