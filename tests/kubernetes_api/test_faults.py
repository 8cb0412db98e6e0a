"""What the lab's API server can be made to do to its clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flannel_core.lab import LabError
from flannel_core.lab.kubernetes import KubernetesServer, node
from flannel_core.lab.kubernetes.client import NODES, Client


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[KubernetesServer]:
    """One for each test, with one node, over plain HTTP."""
    with KubernetesServer(tmp_path) as server:
        server.put_nodes([node("n1", ["10.5.1.0/24"])])
        yield server


@pytest.fixture
def client(lab: KubernetesServer) -> Client:
    return Client(lab, lab.token)


def test_requests_are_counted_by_verb_and_remembered_with_what_they_said(lab: KubernetesServer, client: Client) -> None:
    client.ask(NODES)
    client.ask(f"{NODES}/n1")
    client.patch("n1", {"metadata": {"annotations": {"a": "b"}}}, subresource="status")
    client.patch("n1", {})
    assert lab.counts() == {"list nodes": 1, "get nodes": 1, "patch nodes/status": 1, "patch nodes": 1}
    asked = lab.requests()[2]
    assert (asked.name, asked.body, asked.code) == ("n1", '{"metadata": {"annotations": {"a": "b"}}}', 200)
    assert lab.requests()[3].code == 403
    lab.forget_requests()
    assert lab.requests() == []


def test_a_server_that_is_down_takes_no_connections_and_forgets_nothing(lab: KubernetesServer, client: Client) -> None:
    lab.down()
    with pytest.raises(ConnectionError):
        client.ask(NODES)
    lab.up()
    assert client.node("n1")["spec"]["podCIDR"] == "10.5.1.0/24"


def test_watches_break_when_they_are_cut_and_nothing_else_does(lab: KubernetesServer, client: Client) -> None:
    other = Client(lab, lab.token)
    other.ask(NODES)
    connection = other.connection.sock
    with client.watching(resourceVersion=0) as events:
        assert next(events)["type"] == "ADDED"
        assert lab.cut_watches() == 1
        assert next(events, None) is None
    other.ask(NODES)
    assert other.connection.sock is connection


def test_watches_break_again_and_again(lab: KubernetesServer, client: Client) -> None:
    lab.faults(cut_watches_every=0.2)
    for _ in range(3):
        with client.watching(resourceVersion=0) as events:
            assert next(events)["type"] == "ADDED"
            assert next(events, None) is None


def test_so_many_requests_are_refused(lab: KubernetesServer, client: Client) -> None:
    lab.faults(refuse=2, retry_after=3)
    for _ in range(2):
        answer = client.ask(NODES)
        assert (answer.code, answer.value["reason"], answer.headers["Retry-After"]) == (429, "TooManyRequests", "3")
    assert client.ask(NODES).code == 200


def test_a_watch_from_a_compacted_version_is_refused_with_the_code_of_http(
    lab: KubernetesServer, client: Client
) -> None:
    lab.compact()
    lab.faults(gone_as_status=True)
    answer = client.ask(NODES, watch="true", resourceVersion="1")
    assert (answer.code, answer.value["reason"]) == (410, "Expired")


def test_bookmarks_come_as_often_as_is_wished(lab: KubernetesServer, client: Client) -> None:
    lab.faults(bookmark_seconds=0.1)
    with client.watching(allowWatchBookmarks="true") as events:
        assert next(events)["type"] == "ADDED"
        lab.put_nodes([node("n2")])
        assert [next(events)["type"] for _ in range(4)] == ["ADDED", *["BOOKMARK"] * 3]


def test_an_old_token_is_refused_once_there_is_a_new_one(lab: KubernetesServer, client: Client) -> None:
    token = lab.rotate_token()
    assert client.ask(NODES).code == 401
    assert Client(lab, token).ask(NODES).code == 200


def test_a_right_that_was_taken_is_missed(lab: KubernetesServer, client: Client) -> None:
    lab.deny("watch", "nodes")
    assert client.ask(NODES, watch="true").code == 403
    lab.allow("watch", "nodes")
    assert client.watch()[0]["type"] == "ADDED"


def test_answers_take_their_time(lab: KubernetesServer, client: Client) -> None:
    lab.faults(delay=0.3)
    begin = time.monotonic()
    client.ask(NODES)
    assert time.monotonic() - begin >= 0.3


def test_a_proxy_answers_with_a_page(lab: KubernetesServer, client: Client) -> None:
    lab.faults(page="<html>Sign in</html>")
    answer = client.ask(NODES)
    assert (answer.code, answer.value, answer.headers["Content-Type"]) == (502, "<html>Sign in</html>", "text/html")


def test_a_node_is_written_as_it_is_given_even_where_no_server_would_take_it(
    lab: KubernetesServer, client: Client
) -> None:
    lab.put_nodes([node("n2", ["10.5.1.0/24", "10.5.2.0/24", "fc00::/64"])])
    assert len(client.node("n2")["spec"]["podCIDRs"]) == 3


def test_a_fault_that_is_none_is_named(lab: KubernetesServer) -> None:
    with pytest.raises(LabError, match="cannot faults"):
        lab.faults(delay="long")


def test_a_server_whose_port_is_taken_says_so(lab: KubernetesServer, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    directory.mkdir()
    other = KubernetesServer(directory)
    other.port = lab.port
    with pytest.raises(LabError, match="address already in use"):
        other.start()
