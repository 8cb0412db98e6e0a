"""How many nodes are listed, as of when, and in which pages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from flannel_core.lab.kubernetes.client import Client
from flannel_core.lab.kubernetes.endpoint import ApiServer

NODES = "/api/v1/nodes"


@pytest.fixture
def seven(admin: Client) -> Client:
    """n0 to n6."""
    for number in range(7):
        admin.create({"metadata": {"name": f"n{number}"}})
    return admin


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer.value["items"]]


def test_a_list_says_what_it_is_and_its_items_do_not(seven: Client) -> None:
    answer = seven.ask(NODES)
    assert (answer.value["kind"], answer.value["apiVersion"]) == ("NodeList", "v1")
    assert names(answer) == [f"n{number}" for number in range(7)]
    assert not any("kind" in item or "apiVersion" in item for item in answer.value["items"])
    assert int(answer.value["metadata"]["resourceVersion"]) >= max(
        int(item["metadata"]["resourceVersion"]) for item in answer.value["items"]
    )


def test_no_nodes_are_an_empty_list(admin: Client) -> None:
    assert admin.ask(NODES).value["items"] == []


def test_pages_show_the_moment_of_the_first(seven: Client) -> None:
    first = seven.ask(NODES, limit=3)
    assert names(first) == ["n0", "n1", "n2"]
    assert first.value["metadata"]["remainingItemCount"] == 4
    seven.create({"metadata": {"name": "n45"}})
    seven.ask(f"{NODES}/n5", "DELETE")
    seven.patch("n4", {"metadata": {"annotations": {"later": "1"}}})
    second = seven.ask(NODES, limit=3, **{"continue": first.value["metadata"]["continue"]})
    assert names(second) == ["n3", "n4", "n5"]
    assert "annotations" not in second.value["items"][1]["metadata"]
    assert second.value["metadata"]["remainingItemCount"] == 1
    third = seven.ask(NODES, limit=3, **{"continue": second.value["metadata"]["continue"]})
    assert names(third) == ["n6"]
    assert not {"continue", "remainingItemCount"} & set(third.value["metadata"])
    versions = {answer.value["metadata"]["resourceVersion"] for answer in (first, second, third)}
    assert len(versions) == 1


def test_a_last_page_that_is_full_is_the_last(seven: Client) -> None:
    assert not {"continue", "remainingItemCount"} & set(seven.ask(NODES, limit=7).value["metadata"])


def test_version_0_is_answered_whole_whatever_the_limit(seven: Client) -> None:
    seven.ask(NODES, resourceVersion=seven.ask(NODES).value["metadata"]["resourceVersion"])
    answer = seven.ask(NODES, limit=3, resourceVersion="0")
    assert len(names(answer)) == 7
    assert "continue" not in answer.value["metadata"]


def test_one_node_by_its_name(seven: Client) -> None:
    assert names(seven.ask(NODES, fieldSelector="metadata.name=n3")) == ["n3"]
    assert names(seven.ask(NODES, fieldSelector="metadata.name=nobody")) == []


def test_a_field_that_cannot_be_selected_by(seven: Client) -> None:
    answer = seven.ask(NODES, fieldSelector="spec.podCIDR=10.5.1.0/24")
    assert (answer.code, answer.value["reason"]) == (400, "BadRequest")
    assert "field label not supported: spec.podCIDR" in answer.value["message"]


def test_pages_of_a_moment_that_was_compacted_have_expired(seven: Client, server: ApiServer) -> None:
    token = seven.ask(NODES, limit=3).value["metadata"]["continue"]
    seven.ask(f"{NODES}/n4", "DELETE")
    server.compact()
    answer = seven.ask(NODES, limit=3, **{"continue": token})
    assert (answer.code, answer.value["status"], answer.value["reason"]) == (410, "Failure", "Expired")
    rest = seven.ask(NODES, limit=2, **{"continue": answer.value["metadata"]["continue"]})
    assert names(rest) == ["n3", "n5"]


def test_a_list_as_of_a_version(seven: Client) -> None:
    version = seven.ask(NODES).value["metadata"]["resourceVersion"]
    seven.ask(f"{NODES}/n4", "DELETE")
    assert "n4" in names(seven.ask(NODES, resourceVersion=version, resourceVersionMatch="Exact"))
    assert "n4" in names(seven.ask(NODES, resourceVersion=version, limit=5))
    wait_until_gone(seven, "n4")
    assert "n4" not in names(seven.ask(NODES, resourceVersion=version, resourceVersionMatch="NotOlderThan"))
    assert "n4" not in names(seven.ask(NODES, resourceVersion=version))


def wait_until_gone(client: Client, name: str) -> None:
    """A read that is not older than the latest write waits for the server's memory."""
    latest = client.ask(NODES).value["metadata"]["resourceVersion"]
    assert name not in names(client.ask(NODES, resourceVersion=latest))


def test_a_list_as_of_a_version_that_was_compacted(seven: Client, server: ApiServer) -> None:
    version = seven.ask(NODES).value["metadata"]["resourceVersion"]
    seven.ask(f"{NODES}/n4", "DELETE")
    server.compact()
    answer = seven.ask(NODES, resourceVersion=version, resourceVersionMatch="Exact")
    assert (answer.code, answer.value["reason"]) == (410, "Expired")


def test_a_version_that_is_not_reached_yet_is_waited_for(seven: Client) -> None:
    version = int(seven.ask(NODES).value["metadata"]["resourceVersion"]) + 1_000_000
    answer = seven.ask(NODES, resourceVersion=version)
    assert (answer.code, answer.value["reason"]) == (504, "Timeout")
    assert answer.value["message"].startswith(f"Timeout: Too large resource version: {version}, current: ")
    assert answer.value["details"] == {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"continue": "garbage"}, 400),
        ({"continue": base64.urlsafe_b64encode(b"{}").decode()}, 400),
        ({"resourceVersion": "abc"}, 500),
        ({"limit": "abc"}, 400),
    ],
)
def test_a_parameter_that_is_none_is_refused(admin: Client, query: dict[str, str], code: int) -> None:
    answer = admin.ask(NODES, **query)
    assert (answer.code, answer.value["kind"]) == (code, "Status")


def test_a_page_belongs_to_no_other_version(seven: Client) -> None:
    token = seven.ask(NODES, limit=3).value["metadata"]["continue"]
    answer = seven.ask(NODES, limit=3, resourceVersion="5", **{"continue": token})
    assert answer.code == 400


def test_a_token_is_opaque_to_all_but_the_curious(seven: Client) -> None:
    answer = seven.ask(NODES, limit=3)
    token = json.loads(base64.urlsafe_b64decode(answer.value["metadata"]["continue"] + "=="))
    assert str(token["rv"]) == answer.value["metadata"]["resourceVersion"]
