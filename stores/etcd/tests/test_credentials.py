"""Certificates and users: what is accepted, what is refused and in which words, and what changes underway."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from flannel_core.conformance.stores import IPV4, host
from flannel_core.conformance.watching import watching
from flannel_core.lab.etcd import EtcdCluster
from flannel_core.store import Request, StoreError, StoreUnavailable
from flannel_store_etcd.endpoints import Tls

PREFIX = "/coreos.com/network"


class Authority:
    """A certificate authority and what it signs, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ca = trustme.CA()
        self.cafile = str(directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.cafile)

    def issue(self, name: str, *identities: str, **how: Any) -> dict[str, str]:
        """``certfile`` and ``keyfile``; an earlier pair of that name is replaced."""
        made = self._ca.issue_cert(*identities, **how)
        files = {"certfile": str(self.directory / f"{name}.pem"), "keyfile": str(self.directory / f"{name}.key")}
        made.private_key_pem.write_to_path(files["keyfile"])
        for number, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(files["certfile"], append=number > 0)
        return files

    def serving(self, *options: str, **server: str) -> list[str]:
        files = server or self.issue("server", "127.0.0.1", "localhost")
        return ["--cert-file", files["certfile"], "--key-file", files["keyfile"], *options]

    def serving_who_has_one_of_ours(self) -> list[str]:
        return self.serving("--client-cert-auth", "--trusted-ca-file", self.cafile)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """TLS; whoever has a certificate must have one of ours, and clients may do without."""
    cluster = EtcdCluster(tmp_path_factory.mktemp("secure"), secure=True, options=authority.serving())
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="module")
def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """TLS for those who have a certificate of ours."""
    options = authority.serving_who_has_one_of_ours()
    cluster = EtcdCluster(tmp_path_factory.mktemp("mutual"), secure=True, options=options)
    cluster.start()
    yield cluster
    cluster.kill()


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
async def test_an_etcd_with_tls_serves(agent: Any, secure: EtcdCluster, authority: Authority, address: str) -> None:
    url = secure.endpoints.replace("127.0.0.1", address)
    async with agent(url, cafile=authority.cafile) as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        await watcher.until(lambda w: lease.key in w.view, 5)
        assert store.unavailable is None


async def test_an_etcd_with_mutual_tls_serves_who_has_a_certificate(
    agent: Any, mutual: EtcdCluster, authority: Authority
) -> None:
    ours = authority.issue("client", "host1.example")
    async with agent(mutual.endpoints, cafile=authority.cafile, **ours) as store:
        await store.acquire(Request(IPV4, host(1)))


async def test_an_authority_that_did_not_sign_it_is_named(
    agent: Any, complaint: Any, secure: EtcdCluster, stranger: Authority
) -> None:
    async with agent(secure.endpoints, cafile=stranger.cafile) as store:
        said = await complaint(store)
    assert said.startswith(f"{secure.endpoints}: its certificate is signed by an authority that is not trusted here")
    assert "--etcd-cafile" in said


@pytest.mark.parametrize(
    ("identities", "how", "reason"),
    [
        (["etcd.example"], {}, "its certificate is for another address"),
        (["127.0.0.1"], {"not_after": datetime.datetime(2020, 1, 1)}, "its certificate has expired"),
    ],
    ids=["for another host", "expired"],
)
async def test_a_certificate_that_does_not_hold_is_named(
    agent: Any, complaint: Any, clusters: Any, authority: Authority, identities: Any, how: Any, reason: str
) -> None:
    if how:
        how = {"not_before": datetime.datetime(2019, 1, 1), **how}
    options = authority.serving(**authority.issue("bad", *identities, **how))
    cluster = clusters(secure=True, options=options)
    async with agent(cluster.endpoints, cafile=authority.cafile) as store:
        assert f"{cluster.endpoints}: {reason}" in await complaint(store)
        with pytest.raises(StoreUnavailable, match=reason):
            await store.previous(host(1))


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's"])
async def test_a_client_certificate_that_is_not_accepted_is_named(
    agent: Any, complaint: Any, mutual: EtcdCluster, authority: Authority, stranger: Authority, whose: str
) -> None:
    ours = stranger.issue("client", "host1.example") if whose == "a stranger's" else {}
    async with agent(mutual.endpoints, cafile=authority.cafile, **ours) as store:
        said = await complaint(store)
    assert said.startswith(f"{mutual.endpoints}: does not accept this host's certificate")
    assert "--etcd-certfile" in said


@pytest.mark.parametrize("option", ["cafile", "certfile", "keyfile"])
@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file or directory"), ("rubbish", "PEM certificate")], ids=["missing", "bad"]
)
async def test_a_file_that_is_missing_or_none_ends_the_agent(
    agent: Any, authority: Authority, tmp_path: Path, option: str, content: str | None, reason: str
) -> None:
    files = {"cafile": authority.cafile, **authority.issue("client", "host1.example")}
    files[option] = str(tmp_path / "file.pem")
    if content is not None:
        (tmp_path / "file.pem").write_text(content)
    with pytest.raises(StoreError, match=reason) as error:
        async with agent("https://127.0.0.1:1", **files):
            pass
    assert f"--etcd-{option}" in str(error.value)
    assert files[option] in str(error.value)


@pytest.mark.parametrize("given", ["certfile", "keyfile"])
async def test_half_a_pair_ends_the_agent(agent: Any, authority: Authority, given: str) -> None:
    with pytest.raises(StoreError, match=f"--etcd-{given} is given without"):
        async with agent("https://127.0.0.1:1", **{given: authority.issue("client", "host1.example")[given]}):
            pass


async def test_a_rotated_certificate_is_taken_without_a_restart(
    agent: Any, clusters: Any, until: Any, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """The client's pair and the authority are replaced; the server then accepts only the new ones."""
    used = Authority(tmp_path)
    ours = used.issue("client", "host1.example")
    server = used.issue("server", "127.0.0.1")
    options = [*used.serving(**server), "--client-cert-auth", "--trusted-ca-file", used.cafile]
    cluster = clusters(secure=True, options=options)
    async with agent(cluster.endpoints, cafile=used.cafile, **ours) as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        Authority(tmp_path).issue("server", "127.0.0.1")
        replaced = Authority(tmp_path)
        replaced.issue("server", "127.0.0.1")
        cluster.kill()
        cluster.start()
        replaced.issue("client", "host1.example")
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await store.previous(host(1))).key == lease.key
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.1)


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    assert Tls("", "", "").context().minimum_version is ssl.TLSVersion.TLSv1_2


# --- users ----------------------------------------------------------------------------------------------------------


def with_users(cluster: EtcdCluster, *control: str) -> None:
    """A root, and a user flannel who may read and write the prefix."""
    words = [
        ["user", "add", "root:secret"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "flannel"],
        ["role", "grant-permission", "flannel", "--prefix=true", "readwrite", f"{PREFIX}/"],
        ["user", "add", "flannel:pass"],
        ["user", "grant-role", "flannel", "flannel"],
        ["user", "add", "nobody:pass"],
        ["auth", "enable"],
    ]
    for each in words:
        cluster.control(*control, *each)


@pytest.fixture
def guarded(clusters: Callable[..., EtcdCluster]) -> EtcdCluster:
    """A cluster that wants a user. Tokens last 1 s, passwords are hashed at the least cost."""
    cluster = clusters(options=["--auth-token-ttl", "1", "--bcrypt-cost", "4"])
    with_users(cluster)
    return cluster


FLANNEL = {"prefix": PREFIX, "username": "flannel", "password": "pass"}


async def test_a_user_with_a_password_is_served_and_gets_a_new_token_when_his_runs_out(
    agent: Any, guarded: EtcdCluster
) -> None:
    async with agent(guarded.endpoints, **FLANNEL) as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        first = store._client._connection._metadata
        await asyncio.sleep(2.5)
        told = await store.announce(lease, host(2))
        assert store._client._connection._metadata != first
        await watcher.until(lambda w: w.view[lease.key].revision == told.revision, 5)
        assert len(watcher.snapshots) == 1
        assert store.unavailable is None


async def test_a_wrong_password_is_named(agent: Any, complaint: Any, guarded: EtcdCluster) -> None:
    async with agent(guarded.endpoints, **{**FLANNEL, "password": "wrong"}) as store:
        said = await complaint(store)
    assert "authentication failed, invalid user ID or password" in said
    assert "--etcd-password" in said
    assert "wrong" not in said


async def test_a_lacking_user_is_named(agent: Any, complaint: Any, guarded: EtcdCluster) -> None:
    async with agent(guarded.endpoints, prefix=PREFIX) as store:
        assert "give --etcd-username and --etcd-password" in await complaint(store)


async def test_a_user_without_rights_on_the_prefix_is_named(agent: Any, complaint: Any, guarded: EtcdCluster) -> None:
    async with agent(guarded.endpoints, **{**FLANNEL, "username": "nobody"}) as store:
        said = await complaint(store)
    assert "the user 'nobody' has no right to read and write the keys under /coreos.com/network/" in said
    assert "grant-permission" in said


async def test_a_user_who_may_only_read_is_named_when_he_writes(agent: Any, guarded: EtcdCluster) -> None:
    control = ["--user", "root:secret"]
    guarded.control(*control, "role", "add", "reader")
    guarded.control(*control, "role", "grant-permission", "reader", "--prefix=true", "read", f"{PREFIX}/")
    guarded.control(*control, "user", "grant-role", "nobody", "reader")
    async with agent(guarded.endpoints, **{**FLANNEL, "username": "nobody"}) as store:
        with pytest.raises(StoreUnavailable, match="the user 'nobody' has no right to read and write"):
            await store.acquire(Request(IPV4, host(1)))
        assert store.unavailable is not None


async def test_rights_that_are_given_underway_are_used(
    agent: Any, complaint: Any, until: Any, guarded: EtcdCluster
) -> None:
    async with agent(guarded.endpoints, **{**FLANNEL, "username": "nobody"}) as store:
        listening = asyncio.create_task(anext(aiter(store.leases())))
        await complaint(store)
        guarded.control("--user", "root:secret", "user", "grant-role", "nobody", "flannel")
        await asyncio.wait_for(listening, 10)
        assert store.unavailable is None


async def test_authentication_that_is_switched_on_and_off_underway_is_followed(agent: Any, clusters: Any) -> None:
    cluster = clusters(options=["--auth-token-ttl", "1", "--bcrypt-cost", "4"])
    async with agent(cluster.endpoints, **FLANNEL) as store, watching(store, 5) as watcher:
        lease = await store.acquire(Request(IPV4, host(1)))
        keeping = asyncio.create_task(store.keep(lease, 60))
        with_users(cluster)
        other = await store.acquire(Request(IPV4, host(2)))
        await watcher.until(lambda w: other.key in w.view, 5)
        cluster.control("--user", "root:secret", "auth", "disable")
        third = await store.acquire(Request(IPV4, host(3)))
        await watcher.until(lambda w: third.key in w.view, 5)
        assert not keeping.done()
        keeping.cancel()


async def test_authentication_that_is_switched_on_for_an_agent_without_a_user_is_named(
    agent: Any, clusters: Any
) -> None:
    cluster = clusters(options=["--bcrypt-cost", "4"])
    async with agent(cluster.endpoints, prefix=PREFIX) as store:
        lease = await store.acquire(Request(IPV4, host(1)))
        with_users(cluster)
        with pytest.raises(StoreUnavailable, match="give --etcd-username"):
            await store.announce(lease, host(2))
        cluster.control("--user", "root:secret", "auth", "disable")
        async with asyncio.timeout(5):
            while True:  # as the agent does
                try:
                    await store.announce(lease, host(2))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        assert store.unavailable is None


async def test_a_certificate_may_carry_the_users_name(agent: Any, clusters: Any, authority: Authority) -> None:
    """Then etcd's JSON gateway refuses, and gRPC works."""
    server = authority.issue("server", "127.0.0.1")
    options = [*authority.serving(**server), "--client-cert-auth", "--trusted-ca-file", authority.cafile]
    cluster = clusters(secure=True, options=[*options, "--bcrypt-cost", "4"])
    names = {name: authority.issue(name, f"{name}.example", common_name=name) for name in ("root", "flannel", "nobody")}
    root = names["root"]
    with_users(cluster, "--cacert", authority.cafile, "--cert", root["certfile"], "--key", root["keyfile"])
    async with agent(cluster.endpoints, prefix=PREFIX, cafile=authority.cafile, **names["flannel"]) as store:
        await store.acquire(Request(IPV4, host(1)))
    async with agent(cluster.endpoints, prefix=PREFIX, cafile=authority.cafile, **names["nobody"]) as store:
        with pytest.raises(StoreUnavailable, match="this host has no right to read and write"):
            await store.acquire(Request(IPV4, host(2)))


# --- what is no etcd ------------------------------------------------------------------------------------------------


class Answering(http.server.BaseHTTPRequestHandler):
    """A web server; as etcd 2 it answers /version as that did."""

    version: bytes | None = None

    def do_GET(self) -> None:
        found = self.path == "/version" and self.version is not None
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(self.version or b"" if found else b"not found")

    def log_message(self, *_: Any) -> None:
        pass


class Etcd2(Answering):
    version = b'{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}'


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    servers: list[http.server.HTTPServer] = []

    def start(handler: Any) -> str:
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def test_an_etcd_2_is_named(agent: Any, complaint: Any, serve: Any) -> None:
    url = serve(Etcd2)
    async with agent(url) as store:
        assert await complaint(store) == f"{url}: is etcd 2.3.8, which has no v3 API; flannel needs etcd 3.4 or later"


async def test_a_web_server_is_named(agent: Any, complaint: Any, serve: Any) -> None:
    url = serve(Answering)
    async with agent(url) as store:
        assert (await complaint(store)).startswith(f"{url}: is no etcd, it answers 'HTTP/1.0 404")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x1b[31m\x00\xff" * 20, b""])
async def test_something_else_is_named_and_its_words_are_made_safe(agent: Any, complaint: Any, greeting: bytes) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, agent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as store:
        said = await complaint(store)
    assert "is no etcd" in said
    assert said.isprintable()


async def test_http_to_an_etcd_that_speaks_tls_is_named(agent: Any, complaint: Any, secure: EtcdCluster) -> None:
    url = secure.endpoints.replace("https", "http")
    async with agent(url) as store:
        assert await complaint(store) == f"{url}: speaks TLS; write https:// in --etcd-endpoints"


async def test_http_to_an_etcd_that_speaks_mutual_tls_is_named(agent: Any, complaint: Any, mutual: EtcdCluster) -> None:
    url = mutual.endpoints.replace("https", "http")
    async with agent(url) as store:
        assert await complaint(store) == f"{url}: speaks TLS; write https:// in --etcd-endpoints"


async def test_https_to_an_etcd_without_tls_is_named(agent: Any, complaint: Any, shared: EtcdCluster) -> None:
    url = shared.endpoints.replace("http", "https")
    async with agent(url) as store:
        assert (await complaint(store)).startswith(f"{url}: does not speak TLS; if that is meant, write http://")


async def test_a_name_that_is_not_known_is_named(agent: Any, complaint: Any) -> None:
    async with agent("http://etcd.invalid:2379") as store:
        assert (await complaint(store)).startswith("http://etcd.invalid:2379: its name cannot be looked up")


async def test_each_endpoint_has_its_reason(agent: Any, complaint: Any, serve: Any) -> None:
    url = serve(Etcd2)
    async with agent(f"http://127.0.0.1:1,{url}") as store:
        said = await complaint(store)
    assert said == (
        f"http://127.0.0.1:1: connection refused; {url}: is etcd 2.3.8, which has no v3 API; "
        f"flannel needs etcd 3.4 or later"
    )


async def test_one_good_endpoint_among_bad_ones_is_enough(agent: Any, serve: Any, shared: EtcdCluster) -> None:
    for _ in range(3):
        async with agent(f"http://127.0.0.1:1,{serve(Etcd2)},{shared.endpoints},http://etcd.invalid:1") as store:
            await store.acquire(Request(IPV4, host(1)))
            assert store.unavailable is None


async def test_a_password_is_in_nothing_that_is_shown(agent: Any, guarded: EtcdCluster, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    async with agent(guarded.endpoints, **FLANNEL) as store:
        await store.acquire(Request(IPV4, host(1)))
        assert "pass" not in store.location
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("flannel")]
    assert not any("pass" in line for line in ours)
