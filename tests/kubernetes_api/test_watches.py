"""What a watch begins with, what it hears of, and how it ends."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flannel_core.lab.kubernetes.client import Client
from flannel_core.lab.kubernetes.endpoint import ApiServer

NODES = "/api/v1/nodes"


def shown(events: list[Any]) -> list[tuple[str, str]]:
    """Type and name; bookmarks have none."""
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events if event["type"] != "BOOKMARK"]


def version(client: Client) -> str:
    return str(client.ask(NODES).value["metadata"]["resourceVersion"])


def test_a_watch_from_a_version_hears_what_came_after_it(admin: Client) -> None:
    admin.create({"metadata": {"name": "before"}})
    begin = version(admin)
    admin.create({"metadata": {"name": "n1"}})
    admin.patch("n1", {"metadata": {"annotations": {"a": "b"}}})
    admin.ask(f"{NODES}/n1", "DELETE")
    events = admin.watch(resourceVersion=begin)
    assert shown(events) == [("ADDED", "n1"), ("MODIFIED", "n1"), ("DELETED", "n1")]
    assert events[1]["object"]["metadata"]["annotations"] == {"a": "b"}
    assert (events[0]["object"]["kind"], events[0]["object"]["apiVersion"]) == ("Node", "v1")
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(begin)


def test_a_node_that_leaves_is_shown_once_more_with_the_version_of_its_end(admin: Client) -> None:
    admin.create({"metadata": {"name": "n1", "annotations": {"a": "b"}}})
    begin = version(admin)
    admin.ask(f"{NODES}/n1", "DELETE")
    [event] = admin.watch(resourceVersion=begin)
    assert event["object"]["metadata"]["annotations"] == {"a": "b"}
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(begin)


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}, {"resourceVersion": ""}])
def test_a_watch_from_nowhere_begins_with_all_there_is(admin: Client, query: dict[str, Any]) -> None:
    for name in ("n1", "n2"):
        admin.create({"metadata": {"name": name}})
    latest = version(admin)
    admin.ask(NODES, resourceVersion=latest)
    assert sorted(shown(admin.watch(**query))) == [("ADDED", "n1"), ("ADDED", "n2")]


def test_what_happens_during_a_watch_is_heard_at_once(admin: Client, server: ApiServer) -> None:
    begin = version(admin)
    other = Client(server, server.admin_token)
    with admin.watching(resourceVersion=begin, timeoutSeconds=20) as events:
        for name in ("n1", "n2"):
            asked = time.monotonic()
            other.create({"metadata": {"name": name}})
            assert next(events)["object"]["metadata"]["name"] == name
            assert time.monotonic() - asked < 5
    other.connection.close()


def test_a_watch_of_one_node(admin: Client) -> None:
    begin = version(admin)
    for name in ("n1", "n2"):
        admin.create({"metadata": {"name": name}})
    assert shown(admin.watch(resourceVersion=begin, fieldSelector="metadata.name=n2")) == [("ADDED", "n2")]


def test_a_node_by_its_path_is_not_watched(admin: Client) -> None:
    admin.create({"metadata": {"name": "n1"}})
    assert admin.ask(f"{NODES}/n1", watch="true", timeoutSeconds=1).value["kind"] == "Node"


def test_a_watch_ends_in_order_after_its_seconds_and_its_connection_serves_on(admin: Client) -> None:
    begin = time.monotonic()
    assert admin.watch(seconds=1, resourceVersion=version(admin)) == []
    assert 0.9 < time.monotonic() - begin < 5
    assert admin.ask(NODES).code == 200


def test_a_bookmark_before_the_end_says_how_far_it_came(admin: Client, server: ApiServer) -> None:
    begin = version(admin)
    admin.create({"metadata": {"name": "n1"}})
    with admin.watching(resourceVersion=begin, allowWatchBookmarks="true", timeoutSeconds=3) as stream:
        Client(server, server.admin_token).create({"metadata": {"name": "n2"}})
        events = list(stream)
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["ADDED", "ADDED", "BOOKMARK"]
    assert set(kinds[3:]) <= {"BOOKMARK"}  # a real one may send two
    bookmark = events[2]["object"]
    assert (bookmark["kind"], bookmark["apiVersion"]) == ("Node", "v1")
    assert int(bookmark["metadata"]["resourceVersion"]) >= int(events[1]["object"]["metadata"]["resourceVersion"])
    assert "name" not in bookmark["metadata"]


def test_where_nothing_happens_there_is_nothing_to_mark(admin: Client) -> None:
    begin = version(admin)
    admin.create({"metadata": {"name": "n1"}})
    admin.ask(NODES, resourceVersion=version(admin))  # waits until the server's memory has it
    events = admin.watch(seconds=3, resourceVersion=begin, allowWatchBookmarks="true")
    assert [event["type"] for event in events] == ["ADDED"]


def test_no_bookmark_comes_unasked(admin: Client, server: ApiServer) -> None:
    with admin.watching(resourceVersion=version(admin), timeoutSeconds=3) as stream:
        Client(server, server.admin_token).create({"metadata": {"name": "n1"}})
        assert [event["type"] for event in stream] == ["ADDED"]


def test_a_watch_from_a_version_that_is_gone_says_so_and_ends(admin: Client, server: ApiServer) -> None:
    admin.create({"metadata": {"name": "n1"}})
    server.compact()
    [event] = admin.watch(resourceVersion=1)
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["apiVersion"], status["metadata"], status["status"]) == (
        "Status",
        "v1",
        {},
        "Failure",
    )
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")


def test_a_version_that_is_no_number_is_refused(admin: Client) -> None:
    assert admin.ask(NODES, watch="true", resourceVersion="abc").code == 500


def test_a_version_that_is_not_reached_yet_is_silence(admin: Client) -> None:
    later = int(version(admin)) + 1_000_000
    admin.create({"metadata": {"name": "n1"}})
    assert shown(admin.watch(resourceVersion=later)) == []


def test_initial_events_are_not_served_by_this_version(admin: Client) -> None:
    query = {"watch": "true", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    answer = admin.ask(NODES, allowWatchBookmarks="true", **query)
    assert (answer.code, answer.value["reason"]) == (422, "Invalid")
    assert "sendInitialEvents" in answer.value["message"]
