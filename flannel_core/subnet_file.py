"""subnet.env in place: written for the container runtime, and put back whenever it says something else."""

from __future__ import annotations

import logging
from pathlib import Path

from . import subnet_env
from .backend import Node
from .klog import StateLog
from .subnet_env import SubnetEnv

log = logging.getLogger(__name__)


class SubnetFile:
    """The file at ``path``, as far as ``node`` has a lease."""

    def __init__(self, path: Path, *, ip_masq: bool) -> None:
        self.path = path
        self._ip_masq = ip_masq
        self._said = StateLog(log)

    def write(self, node: Node) -> None:
        """Raises OSError; pods get no address then."""
        subnet_env.write(self.path, self._content(node))
        log.info("Wrote subnet file to %s", self.path)

    def put_back(self, node: Node) -> None:
        """Write it again if it vanished or says something else. That it cannot be written is said once."""
        try:
            if self.path.read_bytes() == subnet_env.render(self._content(node)):
                return
        except OSError:
            pass
        try:
            self.write(node)
        except OSError as error:
            self._said.say("file", logging.ERROR, f"{self.path}: cannot be written: {error.strerror}")
        else:
            self._said.over("file")

    def _content(self, node: Node) -> SubnetEnv:
        assert node.lease is not None
        return SubnetEnv(node.config.networks, node.lease.subnets, node.announcement.mtu, self._ip_masq)
