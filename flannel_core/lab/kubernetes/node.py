"""Nodes as kubelets register them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .objects import Json


def node(
    name: str,
    pod_cidrs: Sequence[str] = (),
    *,
    annotations: Mapping[str, str] = {},
    labels: Mapping[str, str] = {},
    size: int = 0,
) -> Json:
    """A node as a kubelet registers it, with podCIDRs as the controller assigns them. ``size``: at least so many bytes
    of JSON, filled up as in real ones, with the names of images."""
    metadata = ({"labels": dict(labels)} if labels else {}) | (
        {"annotations": dict(annotations)} if annotations else {}
    )
    value: Json = {
        "metadata": {"name": name, **metadata},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {},
        "status": {
            "addresses": [{"type": "Hostname", "address": name}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no network plugin"},
                {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "no route"},
            ],
        },
    }
    missing = size - len(json.dumps(value, separators=(",", ":")))
    image = "registry.example/group/image@sha256:" + "0" * 64
    if missing > 0:
        value["status"]["images"] = [
            {"names": [f"{image}{number:06}"], "sizeBytes": 100_000_000 + number}
            for number in range(-(-missing // (len(image) + 40)))
        ]
    return value
