"""Who we are and how the server is reached: what works, and what does not, named with the cure."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from flannel_core.lab.kubernetes import Certificate, KubernetesServer, node
from flannel_core.lab.kubernetes.access import FLANNEL
from flannel_core.store import StoreError
from flannel_store_kubernetes.api import ApiServer, NoAnswer, Refused, get_node
from flannel_store_kubernetes.credentials import Access

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


class Authority:
    """Signs certificates, and keeps them in files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.file = directory / "ca.crt"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, file: str, *names: str, **how: Any) -> tuple[Path, Path]:
        issued = self.ca.issue_cert(*names, **how)
        certificate, key = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[KubernetesServer]:
    certificate, key = authority.issue("server", "127.0.0.1")
    files = Certificate(certificate, key, authority.file, authority.file)
    with KubernetesServer(tmp_path_factory.mktemp("secure"), certificate=files) as server:
        server.put_nodes([node("n1", ["10.5.1.0/24"])])
        yield server


def asked(**access: Any) -> bytes:
    return ApiServer(Access(**{"environ": {}} | access)).answer(get_node("n1"))


def refusal(kubeconfig: Path) -> str:
    with pytest.raises((NoAnswer, Refused)) as refused:
        asked(kubeconfig=str(kubeconfig))
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- what works -----------------------------------------------------------------------------------------------------


def test_a_token_a_token_file_and_a_client_certificate_work(
    secure: KubernetesServer, authority: Authority, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    (tmp_path / "token").write_text(f"{secure.token}\n")
    certificate, key = authority.issue("client", "flannel.example", common_name=FLANNEL)
    for user in ({}, {"tokenFile": "token"}, {"client_certificate": str(certificate), "client_key": str(key)}):
        secure.write_kubeconfig(kubeconfig, **user)
        assert b'"n1"' in asked(kubeconfig=str(kubeconfig))


def test_the_service_account_of_a_pod_works_and_its_token_may_rotate(
    secure: KubernetesServer, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.file.read_bytes())
    (tmp_path / "token").write_text(secure.token)
    address, port = secure.url.removeprefix("https://").rsplit(":", 1)
    environ = {"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": port}
    server = ApiServer(Access(environ=environ, service_account=tmp_path))
    assert b'"n1"' in server.answer(get_node("n1"))
    (tmp_path / "token").write_text(secure.rotate_token())
    assert b'"n1"' in server.answer(get_node("n1")), "it was read again"
    secure.forget_requests()
    secure.rotate_token()
    with pytest.raises(Refused, match=r"does not accept who we are .*the service account's token"):
        server.answer(get_node("n1"))
    assert len(secure.requests()) == 1, "the token in the file is still the old one"
    (tmp_path / "token").write_text(secure.token)
    assert b'"n1"' in server.answer(get_node("n1"))


def test_an_exec_plugin_works_and_is_asked_again_when_its_token_has_run_out(
    secure: KubernetesServer, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin"
    script = """#!/bin/sh
echo asked >> %s/asked
cat <<END
{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
 "status": {"token": "%s", "expirationTimestamp": "2026-01-01T00:00:00Z"}}
END
"""
    plugin.write_text(script % (tmp_path, secure.token))
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    kubeconfig = with_exec(secure, tmp_path / "kubeconfig", str(plugin))
    server = ApiServer(Access(kubeconfig=str(kubeconfig)))
    assert b'"n1"' in server.answer(get_node("n1"))
    assert b'"n1"' in server.answer(get_node("n1"))
    assert len((tmp_path / "asked").read_text().splitlines()) >= 2


def with_exec(server: KubernetesServer, file: Path, command: str) -> Path:
    config = json.loads(server.write_kubeconfig(file).read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": plugin}
    file.write_text(json.dumps(config))
    return file


def test_the_url_wins_over_that_of_the_kubeconfig_and_may_lack_its_scheme(
    secure: KubernetesServer, tmp_path: Path
) -> None:
    kubeconfig = secure.write_kubeconfig(tmp_path / "kubeconfig", url="https://192.0.2.1:6443")
    for url in (secure.url, f"{secure.url}/", secure.url.removeprefix("https://")):
        server = ApiServer(Access(url, str(kubeconfig)))
        for _ in range(2):
            assert b'"n1"' in server.answer(get_node("n1"))


# --- who we are not -------------------------------------------------------------------------------------------------


def test_a_token_that_is_none_is_named(secure: KubernetesServer, tmp_path: Path) -> None:
    text = refusal(secure.write_kubeconfig(tmp_path / "kubeconfig", token="x"))
    assert "does not accept who we are (Unauthorized); it was shown the token or password in" in text
    assert f"{tmp_path}/kubeconfig; get a new one" in text
    assert "does not accept" not in refusal(secure.write_kubeconfig(tmp_path / "kubeconfig", token="x\ny"))


def test_a_client_certificate_that_has_expired_is_named(
    secure: KubernetesServer, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("expired", "flannel.example", common_name=FLANNEL, not_after=YESTERDAY)
    user = {"client_certificate": str(certificate), "client_key": str(key)}
    text = refusal(secure.write_kubeconfig(tmp_path / "kubeconfig", **user))
    assert "does not accept who we are (Unauthorized)" in text
    assert f"has it expired? (`openssl x509 -noout -enddate -in {certificate}`)" in text


def test_an_exec_plugin_that_fails_leaves_us_without_a_name(
    secure: KubernetesServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = refusal(with_exec(secure, tmp_path / "kubeconfig", "/nonexistent/plugin"))
    assert "forbids strangers to get nodes (" in text
    assert f"shown nothing, for {tmp_path}/kubeconfig has no token, no client certificate and no exec plugin" in text
    assert "/nonexistent/plugin" in caplog.text


# --- what cannot be reached -----------------------------------------------------------------------------------------


def test_a_server_whose_certificate_cannot_be_trusted_is_named_with_the_cure(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    for issuer, names, how, said in (
        (authority, ["127.0.0.1"], {"not_after": YESTERDAY}, "certificate has expired; renew it"),
        (other, ["127.0.0.1"], {}, "name its authority in the kubeconfig, certificate-authority"),
        (authority, ["192.0.2.1"], {}, "reach it by one of its certificate's addresses"),
    ):
        certificate, key = issuer.issue("bad", *names, **how)
        with KubernetesServer(tmp_path, certificate=Certificate(certificate, key, authority.file)) as server:
            text = refusal(server.write_kubeconfig(tmp_path / "kubeconfig"))
            assert f"{tmp_path}/kubeconfig its certificate is not accepted: " in text
            assert said in text


def test_https_to_a_server_that_speaks_http_is_named(cluster: KubernetesServer, tmp_path: Path) -> None:
    kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig", url=cluster.url.replace("http:", "https:"))
    assert "if it speaks none, write http:// in --kube-api-url" in refusal(kubeconfig)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://nowhere.invalid:6443", "its name cannot be looked up"),
    ],
)
def test_a_server_that_is_not_there_is_named(url: str, said: str) -> None:
    with pytest.raises(NoAnswer, match=rf"^{url} .*{said}"):
        asked(api_url=url)


class Portal(BaseHTTPRequestHandler):
    """Answers like a login page, to everybody."""

    def do_GET(self) -> None:
        self.answer(200)

    def do_CONNECT(self) -> None:
        self.answer(407)

    def answer(self, code: int) -> None:
        page = b"<html>Sign in</html>"
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def portal() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_login_page_is_named(portal: str) -> None:
    with pytest.raises(Refused, match="answers with text/html, '<html>Sign in</html>': it is no Kubernetes API server"):
        asked(api_url=portal)


def test_a_proxy_that_refuses_is_named(secure: KubernetesServer, portal: str, tmp_path: Path) -> None:
    kubeconfig = secure.write_kubeconfig(tmp_path / "kubeconfig")
    config = json.loads(kubeconfig.read_text())
    for proxy, said in ((portal, "407"), ("http://127.0.0.1:1", "Connection refused")):
        config["clusters"][0]["cluster"]["proxy-url"] = proxy
        kubeconfig.write_text(json.dumps(config))
        text = refusal(kubeconfig)
        assert "is behind a proxy that does not let us through (" in text
        assert said in text


# --- what cannot be understood --------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "https://192.0.2.1:6443"}}],
    "users": [{"name": "u", "user": {"token": "x"}}],
}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff\xfe",
        b"just words",
        b"- a\n- list\n",
        b"{",
        b"a: b: c",
        b"apiVersion: v1\nkind: Config\n",
        b"<html>Sign in</html>",
        json.dumps(GOOD | {"current-context": "other"}).encode(),
        json.dumps(GOOD | {"clusters": []}).encode(),
        json.dumps(GOOD | {"contexts": 5}).encode(),
        json.dumps(
            GOOD | {"clusters": [{"name": "k", "cluster": {"server": "https://h", "certificate-authority": "/no"}}]}
        ).encode(),
    ],
)
def test_a_kubeconfig_that_is_none_ends_the_start_with_its_cure(text: bytes, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(text)
    with pytest.raises(StoreError) as refused:
        ApiServer(Access(kubeconfig=str(kubeconfig))).load()
    assert str(refused.value).startswith(f"--kubeconfig-file={kubeconfig}: is not a usable kubeconfig: ")
    assert "`kubectl config view --raw --minify --flatten` prints one" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("user", "cluster", "what"),
    [
        ({"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, {}, "client certificate"),
        ({"client-certificate-data": "YQ=="}, {}, "client certificate"),
        ({}, {"certificate-authority-data": "YQ=="}, "authority"),
    ],
)
def test_a_certificate_that_is_none_ends_the_start(
    tmp_path: Path, user: dict[str, str], cluster: dict[str, str], what: str
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    clusters = [{"name": "k", "cluster": {"server": "https://192.0.2.1:6443", **cluster}}]
    kubeconfig.write_text(json.dumps(GOOD | {"users": [{"name": "u", "user": user}], "clusters": clusters}))
    with pytest.raises(StoreError, match=rf"{kubeconfig}: its {what} cannot be used: .*it has to be PEM"):
        ApiServer(Access(kubeconfig=str(kubeconfig))).load()


@pytest.mark.parametrize(("path", "said"), [("nothing", "no such file or directory"), (".", "is a directory")])
def test_a_kubeconfig_that_cannot_be_read_ends_the_start(path: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"--kubeconfig-file=.*: {said}; "):
        ApiServer(Access(kubeconfig=str(tmp_path / path))).load()


@pytest.mark.parametrize("url", ["ftp://192.0.2.1", "https://", "http://[::1", "https://h:port", "https://h:99999"])
def test_a_url_that_is_none_ends_the_start(url: str) -> None:
    with pytest.raises(StoreError, match=r"--kube-api-url=.*: expected the URL of an API server such as https://192"):
        ApiServer(Access(api_url=url)).load()


def test_outside_of_a_pod_something_has_to_be_given() -> None:
    with pytest.raises(StoreError, match=r"this is no pod .* give --kubeconfig-file, or --kube-api-url"):
        ApiServer(Access(environ={})).load()


@pytest.mark.parametrize("files", [{}, {"token": "x"}, {"token": "", "ca.crt": "x"}, {"token": "x", "ca.crt": ""}])
def test_a_pod_without_a_service_account_is_told(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environ = {"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(StoreError, match="is automountServiceAccountToken false"):
        ApiServer(Access(environ=environ, service_account=tmp_path)).load()


def test_the_place_is_known_without_a_look_and_tells_no_password() -> None:
    assert Access(api_url="https://user:secret@192.0.2.1:6443").place == "https://192.0.2.1:6443"
    assert Access(kubeconfig="/etc/kubeconfig").place == "/etc/kubeconfig"
    environ = {"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert Access(environ=environ).place == "https://192.0.2.1:443"


# --- what is forbidden ----------------------------------------------------------------------------------------------


async def test_each_verb_that_is_forbidden_is_named_with_the_rule_that_allows_it(
    cluster: KubernetesServer, opened: Callable[..., Any]
) -> None:
    from flannel_core.conformance.store_kit import IPV4, host
    from flannel_core.store import Request

    async with opened() as store:
        for verb, resource in (("get", "nodes"), ("patch", "nodes/status")):
            cluster.deny(verb, resource)
            with pytest.raises(Refused) as refused:
                await store.acquire(Request(IPV4, host(1)))
            assert f'resources: ["{resource}"], verbs: ["{verb}"]' in str(refused.value)
            assert f'User "{FLANNEL}" cannot {verb} resource "{resource}"' in str(refused.value)
            assert store.unavailable == str(refused.value)
            cluster.allow(verb, resource)
        await store.acquire(Request(IPV4, host(1)))
        assert store.unavailable is None
