"""Which subnets the cluster has given to a node, and why one cannot be used yet. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from flannel_core.lease import FAMILIES, Family, IPNetwork
from flannel_core.netconf import NetworkConfig
from flannel_core.printable import printable

from .nodes import BadPodCidrs, Node, pod_cidrs

_FAMILY_IN_SENTENCE: dict[Family, str] = {4: "", 6: "IPv6 "}
_NETWORK_KEYS: dict[Family, str] = {4: "Network", 6: "IPv6Network"}


class Lack(NamedTuple):
    """Why a family has no subnet. ``reason`` is one word, as an Event of the node has it; ``text`` has the cure."""

    reason: str
    text: str


class Assigned(NamedTuple):
    """The node's subnets in the families that are on and have one that can be used, IPv4 first, and what the others
    lack."""

    subnets: tuple[IPNetwork, ...]
    lacks: tuple[Lack, ...]


def assigned(node: Node[Any], config: NetworkConfig) -> Assigned:
    """What a node's podCIDRs are to ``config``; they need not be as long as its SubnetLen. With Go flannel's sentences:
    it ends there."""
    name = printable(node.name)
    try:
        cidrs = pod_cidrs(node.spec)
    except BadPodCidrs as error:
        lack = Lack("BadPodCIDR", f'node "{name}" {error}; a node has at most one podCIDR of each family')
        return Assigned((), (lack,))
    cluster = ",".join(map(str, config.networks))
    cure = (
        f"kube-controller-manager assigns it with --allocate-node-cidrs=true --cluster-cidr={cluster} (kubeadm: "
        f"networking.podSubnet; k3s: --cluster-cidr)"
    )
    if not cidrs:
        return Assigned((), (Lack("PodCIDRNotAssigned", f'node "{name}" pod cidr not assigned; {cure}'),))
    subnets, lacks = [], []
    for family in FAMILIES:
        space, subnet = config.space(family), cidrs.get(family)
        if space is None:
            continue
        if subnet is None:
            text = f'node "{name}" IPv{family} pod cidr not assigned; {cure}, or set EnableIPv{family} to false'
            lacks.append(Lack("PodCIDRNotAssigned", text))
        elif subnet.prefixlen < space.network.prefixlen or subnet.network_address not in space.network:
            text = (
                f'subnet "{space.network}" specified in the flannel net config doesn\'t contain "{subnet}" '
                f'{_FAMILY_IN_SENTENCE[family]}PodCIDR of the "{name}" node; set {_NETWORK_KEYS[family]} in '
                f"net-conf.json (ConfigMap kube-flannel-cfg) to the --cluster-cidr of kube-controller-manager"
            )
            lacks.append(Lack("PodCIDROutsideNetwork", text))
        else:
            subnets.append(subnet)
    return Assigned(tuple(subnets), tuple(lacks))
