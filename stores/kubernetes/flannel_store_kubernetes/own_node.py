"""This host's own node: which one it is, what stands there, and the three things that are written there."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from flannel_core.klog import StateLog
from flannel_core.printable import printable
from flannel_core.store import StoreError, StoreUnavailable

from .api import Refused, create_event, get_node, get_pod, patch_node
from .assignment import Lack
from .client import NOT_FOUND, Client
from .nodes import Node, WholeNode

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 2.0
MOST_PAUSE_SECONDS = 60.0
"""Between two tries to clear NetworkUnavailable."""
CONDITION, REASON = "NetworkUnavailable", "FlannelIsUp"
EVENTS_NAMESPACE = "default"
"""Where Events of what has no namespace are kept."""
COMPONENT = "flannel"
MOST_MESSAGE = 1024
"""Characters of an Event's message that a server takes (pkg/apis/core/validation/events.go)."""


class OwnNode:
    """``environ`` tells which node it is."""

    def __init__(self, client: Client, environ: Mapping[str, str]) -> None:
        self._client = client
        self._environ = environ
        self._name: str | None = None
        self._told: set[Lack] = set()
        """What was said in Events."""
        self._said = StateLog(log)

    async def name(self) -> str:
        """Raises StoreError with Go's sentence where nothing tells which node this is."""
        if self._name is None:
            self._name = self._environ.get("NODE_NAME") or await self._node_of_pod()
        return self._name

    async def read(self) -> WholeNode[Any] | None:
        """None: there is no such node. Raises StoreUnavailable, StoreError."""
        call = get_node(await self.name())
        try:
            return self._decoded(await self._client.ask(call))
        except Refused as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def annotate(self, node: Node[Any], said: Mapping[str, str]) -> WholeNode[Any]:
        """Write these fields of ``Said`` into its annotations; the node as it is then. Raises StoreUnavailable."""
        annotations = dict(sorted((self._client.dialect.key(field), value) for field, value in said.items()))
        return self._decoded(await self._client.ask(patch_node(node.name, {"metadata": {"annotations": annotations}})))

    async def clear_condition(self) -> None:
        """Say that the network is available, as Go flannel does; only if the node does not say so. Waits for the server
        and for the right to, for a pod is not scheduled here before. Raises Closed."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                node = await self.read()
                if node is not None and not _is_available(node):
                    now = _now()
                    condition = {
                        "type": CONDITION,
                        "status": "False",
                        "lastHeartbeatTime": now,
                        "lastTransitionTime": now,
                        "reason": REASON,
                        "message": "Flannel is running on this node",
                    }
                    await self._client.ask(patch_node(node.name, {"status": {"conditions": [condition]}}))
                if node is not None:
                    self._said.over("condition")
                    return
            except StoreUnavailable as error:
                self._said.say("condition", logging.WARNING, f"The node's {CONDITION} is not cleared yet: {error}")
            await self._client.pause(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def post_event(self, node: Node[Any], lack: Lack) -> None:
        """Tell it where operators look. Once, and without the right to (kube-flannel.yml gives none) not at all."""
        if lack in self._told:
            return
        now = _now()
        event = {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"generateName": f"{node.name}.", "namespace": EVENTS_NAMESPACE},
            # `kubectl describe node` looks for the name in place of the uid, as kubelets write it.
            "involvedObject": {"kind": "Node", "apiVersion": "v1", "name": node.name, "uid": node.name},
            "type": "Warning",
            "reason": lack.reason,
            "message": lack.text[:MOST_MESSAGE],
            "source": {"component": COMPONENT, "host": node.name},
            "reportingComponent": COMPONENT,
            "reportingInstance": node.name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._client.answer(create_event(EVENTS_NAMESPACE, event))
        except Refused as refused:
            log.debug("No Event is posted: %s", refused)
        except StoreUnavailable:
            return  # another time
        self._told.add(lack)

    async def _node_of_pod(self) -> str:
        namespace, pod = self._environ.get("POD_NAMESPACE"), self._environ.get("POD_NAME")
        if not namespace or not pod:
            raise StoreError(
                "env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME: the name of this host's node, as "
                "`kubectl get nodes` prints it"
            )
        named = f"'{printable(namespace)}/{printable(pod)}'"
        try:
            found = msgspec.json.decode(await self._client.ask(get_pod(namespace, pod)), type=_Pod)
        except (StoreUnavailable, ValueError) as error:
            raise StoreUnavailable(
                f"error retrieving pod spec for {named}: {error}; POD_NAMESPACE and POD_NAME have to name this pod, or "
                f"NODE_NAME this host's node"
            ) from None
        if not found.spec.node_name:
            raise StoreUnavailable(f"node name not present in pod spec {named}; set NODE_NAME")
        return found.spec.node_name

    def _decoded(self, text: bytes) -> WholeNode[Any]:
        try:
            return self._client.dialect.whole(text)
        except (ValueError, RecursionError) as error:
            raise StoreUnavailable(
                f"{self._client.server.place} sends a node that cannot be read: {printable(str(error), 160)}"
            ) from None


class _PodSpec(msgspec.Struct, frozen=True):
    node_name: str = msgspec.field(default="", name="nodeName")


class _Pod(msgspec.Struct, frozen=True):
    spec: _PodSpec = _PodSpec()


def _is_available(node: WholeNode[Any]) -> bool:
    condition = node.condition(CONDITION)
    return condition is not None and (condition.status, condition.reason) == ("False", REASON)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
