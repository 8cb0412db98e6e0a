"""What becomes of objects that are created, read and deleted."""

from __future__ import annotations

import re

import pytest

from flannel_core.lab.kubernetes.client import Client


def test_a_created_node_is_given_an_identity_and_a_version(admin: Client) -> None:
    node = admin.create({"metadata": {"name": "n1"}})
    assert (node["kind"], node["apiVersion"]) == ("Node", "v1")
    assert re.fullmatch(r"[0-9a-f-]{36}", node["metadata"]["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", node["metadata"]["creationTimestamp"])
    assert int(node["metadata"]["resourceVersion"]) > 0
    assert admin.node("n1") == node


def test_each_write_takes_a_greater_version(admin: Client) -> None:
    versions = [int(admin.create({"metadata": {"name": f"n{n}"}})["metadata"]["resourceVersion"]) for n in range(3)]
    versions.append(int(admin.patch("n0", {"metadata": {"labels": {"a": "b"}}}).value["metadata"]["resourceVersion"]))
    assert versions == sorted(set(versions))


def test_a_node_says_what_it_would_run(admin: Client) -> None:
    status = admin.create({"metadata": {"name": "n1"}})["status"]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert set(status["nodeInfo"].values()) == {""}


def test_a_condition_has_its_times_even_where_nobody_gave_them(admin: Client) -> None:
    condition = {"type": "Ready", "status": "True"}
    node = admin.create({"metadata": {"name": "n1"}, "status": {"conditions": [condition]}})
    assert node["status"]["conditions"] == [{**condition, "lastHeartbeatTime": None, "lastTransitionTime": None}]


@pytest.mark.parametrize(
    "spec",
    [
        {"podCIDR": "10.5.1.0/24"},
        {"podCIDRs": ["10.5.1.0/24"]},
        {"podCIDR": "10.5.1.0/24", "podCIDRs": ["10.5.1.0/24"]},
    ],
)
def test_pod_cidr_and_pod_cidrs_say_the_same(admin: Client, spec: dict[str, object]) -> None:
    node = admin.create({"metadata": {"name": "n1"}, "spec": spec})
    assert (node["spec"]["podCIDR"], node["spec"]["podCIDRs"]) == ("10.5.1.0/24", ["10.5.1.0/24"])


def test_a_node_may_have_a_subnet_of_each_family(admin: Client) -> None:
    node = admin.create({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.5.1.0/24", "fc00:5:0:1::/64"]}})
    assert node["spec"]["podCIDR"] == "10.5.1.0/24"


@pytest.mark.parametrize(
    "pod_cidrs",
    [["10.5.1.0/24", "10.5.2.0/24"], ["10.5.1.0/24", "fc00::/64", "10.5.2.0/24"], ["10.5.1.0"], ["10.5.300.0/24"]],
)
def test_pod_cidrs_that_are_none_are_refused(admin: Client, pod_cidrs: list[str]) -> None:
    answer = admin.ask("/api/v1/nodes", "POST", {"metadata": {"name": "n1"}, "spec": {"podCIDRs": pod_cidrs}})
    assert (answer.code, answer.value["reason"]) == (422, "Invalid")
    assert answer.value["message"].startswith('Node "n1" is invalid: ')
    assert answer.value["details"]["causes"][0]["field"].startswith("spec.podCIDRs")
    assert answer.value["details"]["causes"][0]["reason"] == "FieldValueInvalid"


@pytest.mark.parametrize("name", ["", "N1", "n_1", "-n1"])
def test_a_name_that_is_none_is_refused(admin: Client, name: str) -> None:
    answer = admin.ask("/api/v1/nodes", "POST", {"metadata": {"name": name}})
    assert (answer.code, answer.value["reason"]) == (422, "Invalid")
    assert answer.value["details"]["causes"][0]["field"] == "metadata.name"


def test_a_name_is_taken_once(admin: Client) -> None:
    admin.create({"metadata": {"name": "n1"}})
    answer = admin.ask("/api/v1/nodes", "POST", {"metadata": {"name": "n1"}})
    assert answer.code == 409
    assert answer.value == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'nodes "n1" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "n1", "kind": "nodes"},
        "code": 409,
    }


def test_a_new_object_brings_no_version(admin: Client) -> None:
    answer = admin.ask("/api/v1/nodes", "POST", {"metadata": {"name": "n1", "resourceVersion": "7"}})
    assert (answer.code, answer.value["message"]) == (500, "resourceVersion should not be set on objects to be created")


def test_what_is_not_there_is_not_found(admin: Client) -> None:
    answer = admin.ask("/api/v1/nodes/nobody")
    assert answer.code == 404
    assert answer.value["message"] == 'nodes "nobody" not found'
    assert answer.value["reason"] == "NotFound"
    assert answer.value["details"] == {"name": "nobody", "kind": "nodes"}
    assert admin.patch("nobody", {}).code == 404
    assert admin.ask("/api/v1/nodes/nobody", "DELETE").code == 404


def test_a_deleted_node_is_gone(admin: Client) -> None:
    admin.create({"metadata": {"name": "n1"}})
    assert admin.ask("/api/v1/nodes/n1", "DELETE").code == 200
    assert admin.ask("/api/v1/nodes/n1").code == 404


def test_a_node_that_comes_back_is_another(admin: Client) -> None:
    first = admin.create({"metadata": {"name": "n1"}})
    admin.ask("/api/v1/nodes/n1", "DELETE")
    assert admin.create({"metadata": {"name": "n1"}})["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_pod_says_which_node_it_runs_on(admin: Client, flannel: Client) -> None:
    admin.ask("/api/v1/namespaces", "POST", {"metadata": {"name": "kube-flannel"}})
    admin.ask("/api/v1/namespaces/kube-flannel/pods/flannel-x", "DELETE", {"gracePeriodSeconds": 0})
    spec = {"nodeName": "n1", "containers": [{"name": "flannel", "image": "flannel"}]}
    admin.create({"metadata": {"name": "flannel-x"}, "spec": spec}, "/api/v1/namespaces/kube-flannel/pods")
    pod = flannel.ask("/api/v1/namespaces/kube-flannel/pods/flannel-x").value
    assert (pod["kind"], pod["metadata"]["namespace"], pod["spec"]["nodeName"]) == ("Pod", "kube-flannel", "n1")
    answer = flannel.ask("/api/v1/namespaces/kube-flannel/pods/other")
    assert (answer.code, answer.value["message"]) == (404, 'pods "other" not found')


def test_an_event_about_a_node_stands_in_the_namespace_default(admin: Client) -> None:
    event = {
        "metadata": {"generateName": "n1."},
        "involvedObject": {"kind": "Node", "name": "n1"},
        "reason": "SubnetNotAssigned",
        "message": "no podCIDR",
        "type": "Warning",
        "source": {"component": "flanneld"},
    }
    made = admin.create(event, "/api/v1/namespaces/default/events")
    assert re.fullmatch(r"n1\.[a-z0-9]{5}", made["metadata"]["name"])
    assert made["metadata"]["namespace"] == "default"
    admin.ask("/api/v1/namespaces", "POST", {"metadata": {"name": "elsewhere"}})
    answer = admin.ask("/api/v1/namespaces/elsewhere/events", "POST", event)
    assert answer.code == 422
    assert "involvedObject.namespace" in answer.value["message"]
