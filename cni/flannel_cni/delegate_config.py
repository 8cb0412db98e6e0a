"""The configuration of the plugin that does the work (``bridge``, if nothing else is said), made of the network's own
and of what flanneld leased. Pure."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

from flannel_core.printable import printable

from .protocol import Call, Json, kind
from .subnet_env import SubnetEnv

BRIDGE = "bridge"
HOST_LOCAL = "host-local"
VALID_ATTACHMENTS = "cni.dev/valid-attachments"
"""The key that GC gets: who still exists."""


def section(config: Json, key: str) -> Json:
    """An object of the configuration, empty where it is absent. Raises ValueError."""
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{_NETCONF} '{key}' is {kind(value)}, not an object")
    return value or {}


def string(config: Json, key: str, default: str) -> str:
    """A string of the configuration. Raises ValueError."""
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{_NETCONF} '{key}' is {kind(value)}, not a string")
    return value or default


def delegate_config(call: Call, env: SubnetEnv) -> Json:
    """What the delegate is to be configured with. Raises ValueError, whose text the runtime gets."""
    given = section(call.config, "delegate")
    if not isinstance(given.get("type", ""), str):
        raise ValueError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if key in given:
            raise ValueError(f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel")
    plugin = given.get("type", BRIDGE)
    if plugin == call.config.get("type"):
        raise ValueError(f"'delegate' dictionary has the type '{printable(plugin)}', which is this plugin itself")
    config: Json = {
        "type": plugin,
        "ipMasq": not env.ip_masq,  # one of the two has to
        "mtu": env.mtu,
        **({"isGateway": True} if plugin == BRIDGE else {}),
        **given,
        "name": call.network,
        "ipam": _ipam(section(call.config, "ipam"), env),
    }
    if runtime := section(call.config, "runtimeConfig"):
        config["runtimeConfig"] = runtime
    if call.config.get("cniVersion"):
        config["cniVersion"] = call.version
    return config


def encode_config(config: Json) -> bytes:
    """As it is given to the delegate, and kept."""
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def subnets_of(config: Json) -> list[str]:
    """The subnets that a delegate's configuration hands addresses out of; those of another making have none."""
    try:
        return [entry[0]["subnet"] for entry in config["ipam"]["ranges"]]
    except (KeyError, IndexError, TypeError):
        return []


def with_gateways(result: Json) -> Json:
    """A result of ADD in which every route names its gateway: one that does not goes through the container's own (CNI
    specification, section 5). Debian 12's bridge looks for a route without any, and so finds fault with its own work.
    """
    gateways = {ip_interface(ip["address"]).version: ip["gateway"] for ip in result.get("ips", []) if ip.get("gateway")}
    routes = [
        {"gw": gateway, **route} if (gateway := gateways.get(ip_interface(route["dst"]).version)) else route
        for route in result.get("routes", [])
    ]
    return {**result, "routes": routes}


def _ipam(given: Json, env: SubnetEnv) -> Json:
    routes = given.get("routes")
    if routes is None:
        routes = []
    if not isinstance(routes, list):
        raise ValueError(f"{_ROUTES} it is {kind(routes)}, not a list")
    if not isinstance(given.get("type", ""), str):
        raise ValueError(f"failed to assemble Delegate IPAM: 'type' is {kind(given['type'])}, not a string")
    return {
        "type": HOST_LOCAL,
        **given,
        "ranges": [[{"subnet": str(subnet)}] for subnet in env.subnets],
        "routes": [*map(_route, routes), *({"dst": str(network)} for network in env.networks)],
    }


def _route(route: Any) -> Json:
    if not isinstance(route, dict):
        raise ValueError(f"{_ROUTES} {kind(route)} is no route")
    destination = route.get("dst")
    try:
        if not isinstance(destination, str) or "/" not in destination:
            raise ValueError
        ip_interface(destination)
    except ValueError:
        raise ValueError(f"{_ROUTES} invalid CIDR address: {printable(str(destination))}") from None
    return route


_NETCONF = "failed to load flannel netconf file: failed to load netconf:"
_ROUTES = "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes:"
