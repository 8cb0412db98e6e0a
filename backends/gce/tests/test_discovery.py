"""What holds each request of the tests, and each answer, against the discovery document that the SDK ships."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from flannel_core.lab.gce.discovery import Discovery, shipped_document

ROUTE: dict[str, Any] = {
    "name": "flannel-10-5-1-0-24",
    "destRange": "10.5.1.0/24",
    "network": "projects/p1/global/networks/default",
    "priority": 1000,
    "tags": [],
}


@cache
def discovery() -> Discovery:
    return Discovery(shipped_document())


def faults(verb: str, path: str, query: Mapping[str, list[str]] = {}, body: Any = None) -> list[str]:
    found = discovery().find(verb, path)
    assert found
    return discovery().request_faults(*found, query, body)


def test_a_request_as_the_document_has_it_has_no_faults() -> None:
    assert faults("POST", "projects/p1/global/routes", {"alt": ["json"], "requestId": ["a"]}, ROUTE) == []
    assert faults("GET", "projects/p1/global/routes", {"maxResults": ["500"]}) == []


def test_a_path_that_the_document_does_not_have_is_none() -> None:
    assert discovery().find("PATCH", "projects/p1/global/routes/flannel-10-5-1-0-24") is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "flannel_10"}, "body.name is 'flannel_10', which does not match"),
        ({"priority": "1000"}, "body.priority is '1000', no uint32"),
        ({"priority": 2**32}, "no uint32"),
        ({"priority": True}, "body.priority is True, no uint32"),
        ({"tags": "all"}, "body.tags is 'all', no array"),
        ({"tags": [1]}, "body.tags[0] is 1, no string"),
        ({"nextHop": "i"}, "body.nextHop is unknown"),
        ({"id": "1"}, "body.id is read only"),
        ({"routeStatus": "FINE"}, "none of ACTIVE, DROPPED"),
        ({"params": {"x": {}}}, "body.params.x is unknown"),
    ],
)
def test_what_is_wrong_in_a_body_is_named(change: dict[str, Any], fault: str) -> None:
    assert any(fault in said for said in faults("POST", "projects/p1/global/routes", {}, ROUTE | change))


@pytest.mark.parametrize("name", ["name", "destRange", "network", "priority"])
def test_what_a_body_lacks_is_named(name: str) -> None:
    body = {key: value for key, value in ROUTE.items() if key != name}
    assert faults("POST", "projects/p1/global/routes", {}, body) == [f"body.{name} is missing"]


def test_what_is_wrong_in_a_path_or_a_query_is_named() -> None:
    assert "does not match" in faults("GET", "projects/P_1/global/routes")[0]
    assert faults("GET", "projects/p1/global/routes", {"page": ["1"]}) == ["parameter page is unknown"]
    assert "no uint32" in faults("GET", "projects/p1/global/routes", {"maxResults": ["many"]})[0]
    assert faults("DELETE", "projects/p1/global/routes/x", {}, {}) == ["there is a body, and none is wanted"]
    assert faults("POST", "projects/p1/global/routes", {}, None) == ["body is None, no object"]


def test_an_answer_is_held_against_it_too() -> None:
    found = discovery().find("GET", "projects/p1/global/routes/x")
    assert found
    assert discovery().answer_faults(found[0], {**ROUTE, "id": "17"}) == []
    assert discovery().answer_faults(found[0], {**ROUTE, "id": 17}) == ["answer.id is 17, no string"]
