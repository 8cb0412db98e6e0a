"""The resources that the lab's API server knows, and what it holds against an object of each.

Pure. Fields and rules as in https://kubernetes.io/docs/reference/kubernetes-api/; only those that a node agent meets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple

from .status import bad_request, invalid

Json = dict[str, Any]
Cause = tuple[str, str, str]


class Resource(NamedTuple):
    """``plural`` is its name in a path."""

    plural: str
    kind: str
    namespaced: bool


RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource("events", "Event", True),
        Resource("namespaces", "Namespace", False),
        Resource("nodes", "Node", False),
        Resource("pods", "Pod", True),
    )
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""RFC 1123 subdomain."""
NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


def completed(resource: Resource, value: Json) -> Json:
    """A new object with what the server itself puts in."""
    if resource.plural != "nodes":
        return value
    spec = _with_both_pod_cidrs(value.get("spec") or {})
    status: Json = {
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": dict.fromkeys(NODE_INFO, ""),
        **(value.get("status") or {}),
    }
    return {**value, "spec": spec, "status": _with_times(status)}


def updated(resource: Resource, subresource: str, old: Json, new: Json) -> Json:
    """``new`` with what a write through ``subresource`` ("" or "status") may not touch taken from ``old``."""
    other = "spec" if subresource == "status" else "status"
    result = {name: value for name, value in new.items() if name != other}
    if other in old:
        result[other] = old[other]
    if resource.plural == "nodes":
        result["spec"] = _with_both_pod_cidrs(result.get("spec") or {})
        result["status"] = _with_times(result.get("status") or {})
    metadata = dict(result.get("metadata") or {})
    metadata |= {name: old["metadata"][name] for name in ("creationTimestamp", "uid") if name in old["metadata"]}
    for name in ("annotations", "labels"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    return {**result, "metadata": metadata}


def _with_both_pod_cidrs(spec: Json) -> Json:
    """podCIDR is the first of podCIDRs, whichever of them was given."""
    if spec.get("podCIDRs"):
        return {**spec, "podCIDR": spec.get("podCIDR") or spec["podCIDRs"][0]}
    if spec.get("podCIDR"):
        return {**spec, "podCIDRs": [spec["podCIDR"]]}
    return spec


def _with_times(status: Json) -> Json:
    """A condition has its two times, null where nobody gave them."""
    if not status.get("conditions"):
        return status
    times = {"lastHeartbeatTime": None, "lastTransitionTime": None}
    return {**status, "conditions": [{**times, **condition} for condition in status["conditions"]]}


def check_types(value: Json) -> None:
    """Raises ApiError 422 where annotations or labels are no strings."""
    metadata = value.get("metadata") or {}
    for field in ("annotations", "labels"):
        for name, text in (metadata.get(field) or {}).items():
            if not isinstance(text, str):
                message = f"Invalid value: cannot convert {type(text).__name__} to string"
                raise invalid("", "", [("FieldValueInvalid", message, f"metadata.{field}.{name}")])


def check(resource: Resource, value: Json, old: Json | None = None) -> None:
    """Raises ApiError 422. ``old`` is what is to be replaced."""
    name = value["metadata"].get("name", "")
    causes: list[Cause] = []
    if not name:
        causes.append(("FieldValueRequired", "Required value: name or generateName is required", "metadata.name"))
    elif not NAME.fullmatch(name):
        message = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain is wanted'
        causes.append(("FieldValueInvalid", message, "metadata.name"))
    if resource.plural == "nodes":
        causes += _node_causes(value)
    if resource.plural == "events":
        causes += _event_causes(value)
    if resource.plural == "nodes" and old is not None:
        had = (old.get("spec") or {}).get("podCIDRs")
        if had and had != (value.get("spec") or {}).get("podCIDRs"):
            message = 'Forbidden: node updates may not change podCIDR except from "" to valid'
            causes.append(("FieldValueForbidden", message, "spec.podCIDRs"))
    if causes:
        raise invalid(resource.kind, name, causes)


def _node_causes(value: Json) -> Iterable[Cause]:
    given = (value.get("spec") or {}).get("podCIDRs") or []
    networks: list[IPv4Network | IPv6Network] = []
    for number, text in enumerate(given):
        try:
            if "/" not in text:
                raise ValueError(text)
            networks.append(ip_network(text, strict=False))
        except ValueError:
            message = f'Invalid value: "{text}": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
            yield "FieldValueInvalid", message, f"spec.podCIDRs[{number}]"
    if len(given) > 2 or (len(networks) == 2 and networks[0].version == networks[1].version):
        message = f"Invalid value: {given}: may specify no more than one CIDR for each IP family"
        yield "FieldValueInvalid", message, "spec.podCIDRs"


def _event_causes(value: Json) -> Iterable[Cause]:
    concerned = (value.get("involvedObject") or {}).get("namespace", "")
    namespace = value["metadata"].get("namespace", "")
    if concerned != namespace and (concerned or namespace not in ("default", "kube-system")):
        yield (
            "FieldValueInvalid",
            f'Invalid value: "{concerned}": does not match event.namespace',
            ("involvedObject.namespace"),
        )


def check_update(value: Json, name: str) -> None:
    """Raises ApiError 400 where a patch would rename the object."""
    given = value["metadata"].get("name")
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
