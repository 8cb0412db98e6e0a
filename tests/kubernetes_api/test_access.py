"""Who is let in, who may do what, and what the others are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from flannel_core.lab.kubernetes.client import Client
from flannel_core.lab.kubernetes.endpoint import ApiServer
from flannel_core.lab.kubernetes.requests import STRATEGIC_MERGE

SERVICE_ACCOUNT = "system:serviceaccount:kube-flannel:flannel"


def test_a_token_that_nobody_has_is_refused(server: ApiServer) -> None:
    answer = Client(server, "nobody's").ask("/api/v1/nodes")
    assert answer.code == 401
    assert answer.value == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


def test_who_shows_nothing_may_nothing(server: ApiServer) -> None:
    answer = Client(server, None).ask("/api/v1/nodes")
    assert answer.code == 403
    assert answer.value["message"] == (
        'nodes is forbidden: User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope'
    )


def test_the_service_account_may_what_its_role_says(admin: Client, flannel: Client) -> None:
    admin.create({"metadata": {"name": "n1"}})
    assert flannel.ask("/api/v1/nodes").code == 200
    assert flannel.ask("/api/v1/nodes/n1").code == 200
    assert flannel.watch(resourceVersion=0)
    assert flannel.patch("n1", {"metadata": {"annotations": {"a": "b"}}}, subresource="status").code == 200


@pytest.mark.parametrize(
    ("method", "path", "message", "details"),
    [
        (
            "PATCH",
            "/api/v1/nodes/n1",
            f'nodes "n1" is forbidden: User "{SERVICE_ACCOUNT}" cannot patch resource "nodes" '
            'in API group "" at the cluster scope',
            {"name": "n1", "kind": "nodes"},
        ),
        (
            "GET",
            "/api/v1/nodes/n1/status",
            f'nodes "n1" is forbidden: User "{SERVICE_ACCOUNT}" cannot get resource "nodes/status" '
            'in API group "" at the cluster scope',
            {"name": "n1", "kind": "nodes"},
        ),
        (
            "DELETE",
            "/api/v1/nodes/n1",
            f'nodes "n1" is forbidden: User "{SERVICE_ACCOUNT}" cannot delete resource "nodes" '
            'in API group "" at the cluster scope',
            {"name": "n1", "kind": "nodes"},
        ),
        (
            "POST",
            "/api/v1/nodes",
            f'nodes is forbidden: User "{SERVICE_ACCOUNT}" cannot create resource "nodes" '
            'in API group "" at the cluster scope',
            {"kind": "nodes"},
        ),
        (
            "POST",
            "/api/v1/namespaces/default/events",
            f'events is forbidden: User "{SERVICE_ACCOUNT}" cannot create resource "events" '
            'in API group "" in the namespace "default"',
            {"kind": "events"},
        ),
        (
            "GET",
            "/api/v1/namespaces/kube-flannel/pods",
            f'pods is forbidden: User "{SERVICE_ACCOUNT}" cannot list resource "pods" '
            'in API group "" in the namespace "kube-flannel"',
            {"kind": "pods"},
        ),
        ("GET", "/somewhere", f'forbidden: User "{SERVICE_ACCOUNT}" cannot get path "/somewhere"', {}),
    ],
)
def test_what_is_forbidden_is_named(
    flannel: Client, method: str, path: str, message: str, details: dict[str, str]
) -> None:
    answer = flannel.ask(path, method, {} if method in ("POST", "PATCH") else None, STRATEGIC_MERGE)
    assert answer.code == 403
    assert answer.value == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Forbidden",
        "details": details,
        "code": 403,
    }


def test_a_watch_is_a_right_of_its_own(server: ApiServer) -> None:
    answer = Client(server, None).ask("/api/v1/nodes", watch="true")
    assert answer.value["message"].startswith(
        'nodes is forbidden: User "system:anonymous" cannot watch resource "nodes"'
    )


@pytest.mark.parametrize(("watch", "verb"), [("true", "watch"), ("false", "list")])
def test_one_node_of_a_list_is_named_where_it_is_forbidden(server: ApiServer, watch: str, verb: str) -> None:
    answer = Client(server, None).ask("/api/v1/nodes", watch=watch, fieldSelector="metadata.name=n1")
    assert answer.value["message"].startswith(f'nodes "n1" is forbidden: User "system:anonymous" cannot {verb} ')
    assert answer.value["details"] == {"name": "n1", "kind": "nodes"}


def client_with(
    server: ApiServer, authority: trustme.CA, directory: Path, not_after: datetime | None = None, group: str = ""
) -> Client:
    """One that shows a certificate and no token."""
    issued = authority.issue_cert(
        "client", common_name=SERVICE_ACCOUNT, organization_name=group or None, not_after=not_after
    )
    file = directory / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(file)
    return Client(server, None, certfile=str(file))


def test_a_certificate_names_its_user(server: ApiServer, authority: trustme.CA, tmp_path: Path) -> None:
    client = client_with(server, authority, tmp_path)
    assert client.ask("/api/v1/nodes").code == 200
    assert f'User "{SERVICE_ACCOUNT}" cannot create' in client.ask("/api/v1/nodes", "POST", {}).value["message"]


def test_a_certificate_names_its_groups(server: ApiServer, authority: trustme.CA, tmp_path: Path) -> None:
    client = client_with(server, authority, tmp_path, group="system:masters")
    assert client.ask("/api/v1/namespaces/kube-system/pods").code == 200


def test_a_certificate_that_has_expired_is_refused(server: ApiServer, authority: trustme.CA, tmp_path: Path) -> None:
    client = client_with(server, authority, tmp_path, not_after=datetime.now(UTC) - timedelta(days=1))
    assert client.ask("/api/v1/nodes").code == 401


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_anybody_may_ask_whether_it_lives(server: ApiServer, path: str) -> None:
    answer = Client(server, None).ask(path)
    assert (answer.code, answer.value) == (200, "ok")


def test_a_path_that_is_nothing(admin: Client) -> None:
    answer = admin.ask("/nothing")
    assert (answer.code, answer.value) == (404, "404 page not found\n")


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/nodes/n1/nothing"])
def test_a_resource_that_is_none(admin: Client, path: str) -> None:
    answer = admin.ask(path)
    assert (answer.code, answer.value["reason"], answer.value["details"]) == (404, "NotFound", {})
    assert answer.value["message"] == "the server could not find the requested resource"


def test_a_method_that_is_none(admin: Client) -> None:
    answer = admin.ask("/api/v1/nodes/n1", "POST", {})
    assert (answer.code, answer.value["reason"]) == (405, "MethodNotAllowed")
    assert answer.value["message"] == "the server does not allow this method on the requested resource"
    assert answer.value["details"] == {}


def test_an_object_of_another_format_is_refused(admin: Client) -> None:
    answer = admin.ask("/api/v1/nodes", "POST", b"name: n1", "text/plain")
    assert (answer.code, answer.value["reason"]) == (415, "UnsupportedMediaType")
    assert "application/json" in answer.value["message"]


def test_an_answer_of_another_format_cannot_be_had(admin: Client) -> None:
    answer = admin.ask("/api/v1/nodes", accept="text/html")
    assert (answer.code, answer.value["reason"]) == (406, "NotAcceptable")


def test_one_connection_serves_many_requests(admin: Client) -> None:
    admin.ask("/api/v1/nodes")
    connection = admin.connection.sock
    for _ in range(3):
        assert admin.ask("/api/v1/nodes/nobody").code == 404
    assert admin.connection.sock is connection
