"""The store: a host's own node, all nodes, as leases; the subnets are the podCIDRs that the cluster assigns."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from flannel_core import threads
from flannel_core.claim import described
from flannel_core.config_file import ConfigFile
from flannel_core.errors import FlannelError
from flannel_core.klog import StateLog
from flannel_core.lease import FAMILIES, IPNetwork, Lease, Malformed
from flannel_core.netconf import parse_config
from flannel_core.store import (
    Alive,
    Capability,
    Change,
    ConfigText,
    LeaseLost,
    Lost,
    PublicAddresses,
    Request,
    Snapshot,
    StoreContext,
    StoreError,
    StoreUnavailable,
    SubnetNotAssigned,
    SubnetStore,
    Wish,
)

from .annotations import DEFAULT_PREFIX, to_say
from .api import ApiServer, Refused
from .assignment import assigned
from .client import NOT_FOUND, Begun, Client, Closed
from .credentials import Access
from .lease_view import LeaseView
from .node_stream import AnyNode, Entries, Listed, Listing, Quiet, Trouble
from .nodes import BadPodCidrs, Dialect, Node, pod_cidrs
from .own_node import OwnNode
from .wishes import about, completed, reachable, reached_at

log = logging.getLogger(__name__)

NET_CONFIG_PATH = Path("/etc/kube-flannel/net-conf.json")
"""Where kube-flannel.yml mounts its ConfigMap."""
CONFIG_SECONDS = 1.0
"""How often net-conf.json is looked at."""
MOST_AHEAD_SECONDS = 5.0
"""How old the first list may be: what is not in it is removed, and then comes back with the changes since."""
REWRITE_SECONDS = 5.0
MOST_REWRITE_SECONDS = 60.0
"""Between two rewrites of our annotations: whatever else changes them, we do not race with it; longer and longer where
they are refused."""


def _option(name: str, description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"option": name})


class KubernetesOptions(msgspec.Struct, frozen=True):
    """Go flannel's options of its Kubernetes subnet manager. Neither URL nor kubeconfig: the pod's service account."""

    api_url: Annotated[str, _option("kube-api-url", "the Kubernetes API server; found by itself inside a pod")] = ""
    kubeconfig: Annotated[
        str, _option("kubeconfig-file", "how to reach the Kubernetes API; found by itself inside a pod")
    ] = ""
    annotation_prefix: Annotated[
        str,
        _option(
            "kube-annotation-prefix", "what the node annotations begin with; a slash is put behind it if it has none"
        ),
    ] = DEFAULT_PREFIX
    set_network_available: Annotated[
        bool,
        _option("set-node-network-unavailable", "clear the node's condition NetworkUnavailable once traffic flows"),
    ] = True


class KubernetesStore(SubnetStore[KubernetesOptions]):
    """``key`` of a lease is its node's name, ``created`` when the node was, ``revision`` its resourceVersion when it
    last said something else. Nothing expires."""

    Options = KubernetesOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list"})

    def __init__(self, options: KubernetesOptions, context: StoreContext) -> None:
        """Raises StoreError for an annotation prefix that is none."""
        super().__init__(options, context)
        self._dialect = Dialect(options.annotation_prefix)
        access = Access(options.api_url, options.kubeconfig)
        self.location = f"{access.place} {self._dialect.prefix}"
        self._place = access.place
        self._server = ApiServer(access)
        self._client = Client(self._server, self._dialect, self._say)
        self._own = OwnNode(self._client, os.environ)
        self._held: Lease | None = None
        """Our lease as this host wrote it last, or found it."""
        self._wish: Wish | None = None
        """What it has to say."""
        self._own_turn = asyncio.Lock()
        """``announce`` and ``keep`` run side by side: what one has written, the other must not take for another's."""
        self._only_own = False
        """With the backend alloc, which reaches no peers, our own node is all that is asked for, as Go flannel does."""
        self._ahead: Begun[Lease | Malformed] | None = None
        """A list of all nodes that was asked for before anybody follows it."""
        self._said = StateLog(log)
        self._clearing: asyncio.Task[None] | None = None

    def _say(self, trouble: str | None) -> None:
        self.unavailable = trouble

    async def open(self) -> None:
        """Raises StoreError for a kubeconfig or service account that cannot be used. The server is waited for."""
        await threads.call(self._server.load)

    async def close(self) -> None:
        """The iterators end; calls that wait, and later ones, raise StoreUnavailable."""
        if self._clearing is not None:
            self._clearing.cancel()
        await self._client.close()

    # --- net-conf.json ---------------------------------------------------------------------------------------------

    async def config(self) -> AsyncIterator[ConfigText]:
        """The file of ``--net-config-path``: the cluster's API holds none."""
        last = None
        file = ConfigFile(self.context.net_config_path or NET_CONFIG_PATH)
        with suppress(Closed):
            while True:
                text = await threads.call(file.read)
                if text != last:
                    self._only_own = _backend_type(text) == "alloc"
                    yield text
                    last = text
                await self._client.pause(CONFIG_SECONDS)

    # --- our own node ----------------------------------------------------------------------------------------------

    async def public_addresses(self) -> PublicAddresses:
        """The annotations ``node-public-ip`` and ``node-public-ipv6``. A start asks for them first, so this has the
        server put together the list of nodes, which takes it a while."""
        if self._ahead is None and not self._only_own:
            self._ahead = self._client.begin(self._dialect.entry)
        node = await self._own.read()
        if node is None:
            return PublicAddresses()
        return self._operators(node, "node_public_ip", "node_public_ipv6")

    async def previous(self, wish: Wish) -> Lease | None:
        node = await self._own.read()
        entry = None if node is None else self._dialect.entry(node)
        return entry if isinstance(entry, Lease) else None

    async def acquire(self, request: Request) -> Lease:
        """Raises SubnetNotAssigned until the node has podCIDRs inside the configuration's networks."""
        dry_run = request.dry_run or self.context.dry_run
        async with self._own_turn:
            node = await self._own.read()
            if node is None:
                raise SubnetNotAssigned(
                    f'there is no node "{await self._own.name()}" at {self._place}: the kubelet has not registered it '
                    f"yet, or NODE_NAME is not its name, which is one of those that `kubectl get nodes` prints"
                )
            subnets, lacks = assigned(node, request.config)
            for lack in lacks:
                if not dry_run:
                    await self._own.post_event(node, lack)
                if subnets:  # the family that has one goes on
                    self._said.say(lack.reason, logging.WARNING, lack.text)
            if not subnets:
                raise SubnetNotAssigned("; ".join(lack.text for lack in lacks))
            subnets = reachable(subnets, request.wish)
            wish = about(request.wish, subnets)
            if dry_run:
                lease = self._described(node, subnets, wish)
                return lease if node.is_managed else msgspec.structs.replace(lease, revision=0)
            lease = await self._publish(node, subnets, wish)
        if self._clearing is not None:  # the node may be another by now
            await self.ready()
        return lease

    async def announce(self, lease: Lease, wish: Wish) -> Lease:
        self._may_write()
        wish = completed(wish, lease)
        before = self._wish or wish
        if (wish.public_ipv4, wish.public_ipv6) != (before.public_ipv4, before.public_ipv6):
            self._client.start_over()
        async with self._own_turn:
            node = await self._own.read()
            if (lost := self._lost(node, lease)) is not None:
                raise LeaseLost(lost)
            assert node is not None
            return await self._publish(node, lease.subnets, wish)

    async def keep(self, lease: Lease, margin_seconds: float) -> Lost:
        """Nothing expires: our node is watched, and what another takes from its annotations is put back.
        ``margin_seconds`` means nothing."""
        name = await self._own.name()
        since = str((self._held or lease).revision)
        found: AnyNode | None = None
        async with aclosing(self._client.follow(self._client.begin(_as_it_is, only=name, since=since))) as steps:
            async for step in steps:
                match step:
                    case Listing():
                        found = None
                        continue
                    case Entries(entries):
                        found, revision = entries[-1].value, entries[-1].revision
                    case Listed(revision) if found is None:
                        pass
                    case _:
                        continue
                if (lost := await self._kept(lease, found, revision)) is not None:
                    return lost
        raise Closed

    async def _kept(self, lease: Lease, node: AnyNode | None, revision: int) -> Lost | None:
        """What our node, as it was at ``revision``, means for our lease."""
        pause = REWRITE_SECONDS
        while True:
            try:
                async with self._own_turn:
                    held = self._held or lease
                    if 0 < revision < held.revision:
                        return None  # we have written since
                    if (lost := self._lost(node, lease)) is not None:
                        return lost
                    if not isinstance(node, Node) or self._wish is None or not to_say(node.said, self._wish):
                        return None
                    renewed = await self._publish(node, lease.subnets, self._wish)
            except StoreUnavailable as error:
                if isinstance(error, Refused) and error.status == NOT_FOUND:
                    return Lost(f"node {lease.key} is gone from {self._place}")
                await self._client.pause(pause)
                pause = min(2 * pause, MOST_REWRITE_SECONDS)
            else:
                log.warning("The annotations of node %s were changed by another; ours are back", renewed.key)
                self.on_renewal(renewed)
                await self._client.pause(REWRITE_SECONDS)
                return None

    def _lost(self, node: AnyNode | None, lease: Lease) -> Lost | None:
        """None as long as ``node`` is the one that ``lease`` is of, and has its subnets."""
        if node is None:
            return Lost(f"node {lease.key} is gone from {self._place}")
        if isinstance(node, Malformed):
            return None
        if node.created != lease.created:
            return Lost(f"node {lease.key} was registered anew at {self._place}")
        try:
            cidrs = pod_cidrs(node.spec)
        except BadPodCidrs as error:
            return Lost(f"node {lease.key} {error}")
        if any(cidrs.get(subnet.version) != subnet for subnet in lease.subnets):
            now = ", ".join(map(str, cidrs.values())) or "gone"
            return Lost(f"the podCIDR of node {lease.key} is {now}, and was {', '.join(map(str, lease.subnets))}")
        return None

    def _described(self, node: Node[Any], subnets: tuple[IPNetwork, ...], wish: Wish) -> Lease:
        """Our lease as it is to be. Raises FlannelError for a family without an address, StoreUnavailable for an
        operator's address that is none."""
        entry = self._dialect.entry(node)
        said = entry if isinstance(entry, Lease) else Lease(node.name)
        before = msgspec.structs.replace(said, created=node.created, revision=node.revision)
        lease = described(subnets, wish, before)
        return reached_at(lease, self._operators(node, "public_ip_overwrite", "public_ipv6_overwrite"))

    async def _publish(self, node: Node[Any], subnets: tuple[IPNetwork, ...], wish: Wish) -> Lease:
        """Have the node say what ``wish`` wants; nothing is written if it does."""
        lease = self._described(node, subnets, wish)
        if said := to_say(node.said, wish):
            lease = msgspec.structs.replace(lease, revision=(await self._own.annotate(node, said)).revision)
        self._held, self._wish = lease, wish
        return lease

    def _operators(self, node: Node[Any], ipv4: str, ipv6: str) -> PublicAddresses:
        """The addresses in two annotations that are the operator's. Raises StoreUnavailable that names a bad one."""
        found: dict[str, Any] = {}
        for family, field in zip(FAMILIES, (ipv4, ipv6), strict=True):
            text = getattr(node.said, field)
            try:
                found[f"ipv{family}"] = self._dialect.address(family, text, field) if text else None
            except ValueError as error:
                key = self._dialect.key(field)
                raise StoreUnavailable(
                    f"node {node.name}: {error}; correct it (kubectl annotate --overwrite node {node.name} "
                    f"{key}=ADDRESS) or remove it (kubectl annotate node {node.name} {key}-)"
                ) from None
        return PublicAddresses(**found)

    async def ready(self) -> None:
        """Clears NetworkUnavailable, however long the server takes to let us."""
        if self.options.set_network_available and not self.context.dry_run:
            if self._clearing is not None:
                self._clearing.cancel()
            self._clearing = asyncio.create_task(self._own.clear_condition(), name="network-available")

    def _may_write(self) -> None:
        if self.context.dry_run:
            raise StoreError(f"{self.location}: nothing is written in a dry run")

    # --- all leases ------------------------------------------------------------------------------------------------

    async def leases(self) -> AsyncIterator[Snapshot | Change | Alive]:
        """Alive comes as often as something is heard; where no node changes, whenever the silent watch is resumed."""
        view = LeaseView(lambda: self._held)
        async with aclosing(self._client.follow(await self._begun())) as steps:
            async for step in steps:
                match step:
                    case Listing():
                        view.begin()
                    case Entries(entries):
                        news = False
                        for entry in entries:
                            if (change := view.take_in(entry)) is not None:
                                news = True
                                yield change
                        if not news:
                            yield Alive()
                    case Listed(revision):
                        yield view.end(revision)
                    case Quiet():
                        yield Alive()
                del step

    async def list(self) -> Snapshot:
        view = LeaseView(lambda: self._held)
        async with aclosing(self._client.follow(self._client.begin(self._dialect.entry))) as steps:
            async for step in steps:
                match step:
                    case Entries(entries):
                        for entry in entries:
                            view.take_in(entry)
                    case Listed(revision):
                        return view.end(revision)
                    case Trouble(str(reason)):
                        raise StoreUnavailable(reason)
        raise Closed

    async def _begun(self) -> Begun[Lease | Malformed]:
        """What a watcher follows."""
        begun, self._ahead = self._ahead, None
        if begun is not None:
            if begun.age <= MOST_AHEAD_SECONDS and not self._only_own:
                return begun
            self._client.drop(begun)
        return self._client.begin(self._dialect.entry, only=await self._own.name() if self._only_own else None)


def _as_it_is(node: AnyNode) -> AnyNode:
    return node


def _backend_type(text: ConfigText) -> str:
    """Empty where it cannot be told: the configuration is judged elsewhere."""
    try:
        return parse_config(text.text or b"", text.source, ranges=False).backend_type
    except FlannelError:
        return ""
