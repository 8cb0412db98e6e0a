"""What happens to a Kubernetes API server and to those who watch it, while their hosts forward."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..kubernetes import KubernetesServer, node
from ..kubernetes.lab_store import KubernetesLabStore
from ..network import LabError
from .scene import Case, Outcome, Scene

AWAY = "API server down, its watches cut, its history compacted, the token rotated"
AWAY_SECONDS = 25.0
"""What a client may take to find the server again after a long outage: its longest pause, and another if it comes just
too early."""
MOST_AT_ONCE = 8
"""Requests or connections of one agent that begins anew: a list and a watch of all nodes and of its own, and as many
for what just failed."""
MOST_A_SECOND = 2.0
"""That one agent goes on trying."""
STRAY = "stray"


def _store(scene: Scene) -> KubernetesLabStore:
    store = scene.a.store
    assert isinstance(store, KubernetesLabStore)
    return store


def _server(scene: Scene) -> KubernetesServer:
    server = _store(scene).server
    if not isinstance(server, KubernetesServer):
        raise LabError("unset KUBE_APISERVER: only the lab's own API server can be made to fail")
    return server


@contextmanager
def _connections(scene: Scene) -> Iterator[Callable[[], int]]:
    """Counts what the hosts try to connect to the server, whether it listens or not."""
    scene.on_underlay("nft add table inet lab")
    scene.on_underlay("nft add chain inet lab input { type filter hook input priority 0; }")
    port = _server(scene).port
    scene.on_underlay(f"nft add rule inet lab input tcp dport {port} tcp flags & (syn | ack) == syn counter")
    try:
        yield lambda: int(re.findall(r"packets (\d+)", scene.on_underlay("nft list table inet lab"))[0])
    finally:
        scene.on_underlay("nft delete table inet lab")


def _expect_no_storm(scene: Scene, what: str, count: int, seconds: float) -> str:
    """Raises LabError where ``count`` requests or connections are more than patient clients make."""
    most = len(scene.hosts) * (MOST_AT_ONCE + MOST_A_SECOND * seconds)
    if count > most:
        raise LabError(f"{count} {what} of {len(scene.hosts)} hosts in {seconds:.1f} s, more than {most:.0f}")
    return f"{count} {what} in {seconds:.1f} s"


def _quiet(scene: Scene, happening: Callable[[], None]) -> Outcome:
    """Let it happen without a lost ping, a changed lease, or a storm of requests."""

    def all_of_it() -> None:
        happening()
        _hears_again(scene)

    server, before = _server(scene), _annotations(scene)
    server.forget_requests()
    began = time.monotonic()
    with _connections(scene) as connections:
        outcome = scene.unharmed(all_of_it)
        seconds, tried = time.monotonic() - began, connections()
    if (after := _annotations(scene)) != before:
        raise LabError(f"the annotations were {before} and are {after}")
    asked = Counter(f"{request.verb} {request.resource}" for request in server.requests())
    if written := [name for name in asked if name.startswith("patch")]:
        raise LabError(f"nothing has changed, and yet there was {', '.join(written)}")
    said = [
        _expect_no_storm(scene, "connections", tried, seconds),
        _expect_no_storm(scene, "requests", asked.total(), seconds),
        ", ".join(f"{count} {name}" for name, count in sorted(asked.items())),
    ]
    return Outcome(outcome.seconds, outcome.lost, outcome.sent, "; ".join(said))


def _annotations(scene: Scene) -> dict[str, dict[str, str]]:
    """Of each node."""
    return {each["metadata"]["name"]: each["metadata"].get("annotations", {}) for each in _server(scene).nodes()}


def _hears_again(scene: Scene) -> None:
    """Every agent hears of a node that comes, and that it goes."""
    prefix = "flannel.alpha.coreos.com"
    annotations = _annotations(scene)[scene.b.name]
    annotations |= {f"{prefix}/public-ip": "198.51.100.250", f"{prefix}/public-ipv6": "2001:db8:51::250"}
    if scene.combination.backend == "vxlan":
        for name, number in (("backend-data", 4), ("backend-v6-data", 6)):
            annotations[f"{prefix}/{name}"] = f'{{"VNI":1,"VtepMAC":"02:00:00:00:02:5{number}"}}'
    server = _server(scene)
    server.put_nodes([node(STRAY, ["10.5.250.0/24", "fc00:5:0:250::/64"], annotations=annotations)])
    scene.lab.eventually(lambda: all("10.5.250.0/24" in host.run("ip route") for host in scene.running), AWAY_SECONDS)
    server.delete_node(STRAY)
    scene.lab.eventually(lambda: not any("10.5.250.0" in host.run("ip route") for host in scene.running), AWAY_SECONDS)
    scene.lab.eventually(
        lambda: all(host.ready() and not host.status().problems for host in scene.running), AWAY_SECONDS
    )


def _down(scene: Scene) -> Outcome:
    def down() -> None:
        _server(scene).down()
        scene.lab.eventually(lambda: all(host.status().problems for host in scene.running), AWAY_SECONDS)
        time.sleep(scene.outage)
        _server(scene).up()

    return _quiet(scene, down)


def _cut(scene: Scene) -> Outcome:
    def cut() -> None:
        _server(scene).faults(cut_watches_every=1)
        try:
            time.sleep(max(3.0, scene.outage))
            _hears_again(scene)
        finally:
            _server(scene).faults(cut_watches_every=0)

    return _quiet(scene, cut)


def _compacted(scene: Scene) -> Outcome:
    """Away; meanwhile a node comes and goes, and the history that would tell of it is compacted away."""

    def compact() -> None:
        server = _server(scene)
        server.down()
        server.put_nodes([node(STRAY, ["10.5.250.0/24"])])
        server.delete_node(STRAY)
        time.sleep(scene.outage)
        server.compact()
        server.up()

    return _quiet(scene, compact)


def _compacted_in_http(scene: Scene) -> Outcome:
    """The same, said with the code of the answer in place of an event."""
    _server(scene).faults(gone_as_status=True)
    try:
        return _compacted(scene)
    finally:
        _server(scene).faults(gone_as_status=False)


def _rotated(scene: Scene) -> Outcome:
    """The old token is refused before the new one is in its file."""

    def rotate() -> None:
        server = _server(scene)
        server.rotate_token()
        server.cut_watches()
        time.sleep(scene.outage)
        _store(scene).write_token()

    return _quiet(scene, rotate)


CASES = tuple(
    Case(AWAY, name, happen, stores=("kubernetes",), lasts=True)
    for name, happen in (
        ("API server down", _down),
        ("watches cut every second", _cut),
        ("history compacted while nobody could hear", _compacted),
        ("the same, said by the code of HTTP", _compacted_in_http),
        ("token rotated", _rotated),
    )
)
