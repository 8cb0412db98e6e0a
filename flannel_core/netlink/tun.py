"""TUN devices, which rtnetlink cannot make: TUNSET* of linux/if_tun.h, on /dev/net/tun."""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from ..errors import FlannelError
from .link_kinds import IFF_TUN

DEVICE = "/dev/net/tun"
IFF_NO_PI = 0x1000
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC

_IFREQ = Struct("=16sH22x")  # struct ifreq of linux/if.h: ifr_name, ifr_flags


class TunError(FlannelError):
    """A TUN device could not be made; ``str(error)`` says why and what to do."""


def make(name: str, owner: int | None) -> None:
    """A persistent TUN device in the network namespace of the calling thread, down, to which the uid ``owner`` may
    attach. Raises TunError."""
    try:
        opened = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(opened, TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TUN | IFF_NO_PI))
            if owner is not None:
                fcntl.ioctl(opened, TUNSETOWNER, owner)
            fcntl.ioctl(opened, TUNSETPERSIST, 1)
        finally:
            os.close(opened)
    except OSError as error:
        raise TunError(_explain(name, error)) from None


def _explain(name: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"{DEVICE} is missing, which makes TUN devices: `modprobe tun`; in a container, give it the device"
            f" (docker run --device {DEVICE})"
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "no TUN device may be made: flanneld needs CAP_NET_ADMIN, and its container or unit (DeviceAllow) has"
            f" to allow {DEVICE}"
        )
    return f"the TUN device {name} cannot be made: {error.strerror}"
