"""Why the kernel refused, in words that name the cure."""

from __future__ import annotations

import errno
import platform

from ..objects import Address, FdbEntry, Ipip, Link, Neighbour, Object, OtherLink, Route, Vxlan
from . import routes
from .socket import NetlinkError

CONFIG_NAMES = {"vxlan": "CONFIG_VXLAN", "ipip": "CONFIG_NET_IPIP", "wireguard": "CONFIG_WIREGUARD"}
"""What the kernel's own configuration calls a kind of link."""


def explain(wanted: Object, error: NetlinkError) -> str:
    """The reason of a Failure: why ``wanted`` could not be put or removed."""
    if error.number == errno.EPERM:
        return "not permitted: flanneld needs CAP_NET_ADMIN (root, or the capability in its unit or container)"
    if error.number == errno.ENODEV:
        return missing_device(wanted.on_device or "")
    if isinstance(wanted, Link):
        reason = _link(wanted, error)
    elif isinstance(wanted, Route):
        reason = _route(wanted, error)
    elif isinstance(wanted, Address) and error.number == errno.EACCES:
        reason = f"IPv6 is off at {wanted.device}; `sysctl -w net.ipv6.conf.{wanted.device}.disable_ipv6=0` turns it on"
    elif isinstance(wanted, Neighbour) and error.number == errno.ENOBUFS:
        reason = "the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 (IPv6: net.ipv6)"
    else:
        reason = None
    return reason or f"the kernel refuses it: {error}"


def missing_device(name: str) -> str:
    return f"there is no device {name}"


def other_type(link: Link) -> str:
    """For a device of our name that we did not make and do not touch."""
    kind = link.info.kind_name if isinstance(link.info, OtherLink) else link.info.kind
    return (
        f"{link.name} exists and is of type {kind or 'physical'}: flannel did not make it and leaves it alone;"
        f" `ip link del {link.name}` or another name for it makes room"
    )


def taken_vni(holder: str) -> str:
    return (
        f"the device {holder} has the same VNI and UDP port already: `ip link del {holder}` if nothing needs it,"
        " or another VNI or Port under Backend in net-conf.json"
    )


def taken_tunnel(holder: str) -> str:
    return (
        f"the device {holder} is an ipip tunnel from the same address already, and the kernel has room for one:"
        f" `ip link del {holder}` if nothing needs it"
    )


def in_the_way(standing: Object) -> str:
    """For something foreign of the same identity."""
    if isinstance(standing, Route):
        version = "-6 " if ":" in standing.destination else ""
        what = routes.describe(standing)
        return f"a route that is not flannel's is in the way: {what}; `ip {version}route del {what}` makes room"
    what = standing.describe()
    if isinstance(standing, Neighbour | FdbEntry | Address):
        return f"this is in the way and flannel did not make it: {what}"
    return f"this appeared meanwhile and is looked at again: {what}"


def _link(wanted: Link, error: NetlinkError) -> str | None:
    info = wanted.info
    if error.number == errno.EOPNOTSUPP and error.text in ("", "Unknown device type"):
        kind = info.kind
        return (
            f"this kernel has no {kind}: `modprobe {kind}`; if there is no such module, it is {CONFIG_NAMES[kind]}"
            f" of the kernel, and in a package such as linux-modules-extra-{platform.release()} (Ubuntu) or"
            " kernel-modules-extra (Fedora, RHEL)"
        )
    if error.number == errno.EADDRINUSE and isinstance(info, Vxlan):
        return f"UDP port {info.port} is in use by another program: `ss -lunp` names it"
    if error.number == errno.EINVAL and isinstance(info, Ipip) and info.fou_port:
        return f"the kernel refuses it, most likely for lack of FOU: `modprobe fou` (CONFIG_NET_FOU): {error}"
    if error.number == errno.ERANGE or (
        error.number == errno.EINVAL and ("mtu" in error.text.lower() or not error.text)
    ):
        limit = f" {info.underlay}'s MTU less 50 bytes (70 over IPv6)" if isinstance(info, Vxlan) else " its limits"
        return f"the kernel refuses it, most likely for its MTU of {wanted.mtu}, which has to be within{limit}: {error}"
    return None


def _route(wanted: Route, error: NetlinkError) -> str | None:
    off_link = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    if wanted.gateway and (error.number in off_link or "gateway" in error.text.lower()):
        return (
            f"the gateway {wanted.gateway} is not on-link at {wanted.device}: the host has no address in a network with"
            f" it ({error})"
        )
    if error.number == errno.ENETDOWN:
        return f"the device {wanted.device} is down: `ip link set {wanted.device} up`"
    return None
