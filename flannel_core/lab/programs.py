"""Where the programs are that belong to the running interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

FLANNELD = Path(sys.executable).parent / "flanneld"
FLANNELCTL = Path(sys.executable).parent / "flannelctl"
