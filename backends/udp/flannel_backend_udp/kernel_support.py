"""Whether this kernel does udp by itself: FOU, and IP in IP through it."""

from __future__ import annotations

from flannel_core.errors import FlannelError
from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.process import run

from .fou import FAMILY

MODULES = ("fou", "ipip")
LOAD_SECONDS = 10.0


async def why_not(*, dry_run: bool) -> str | None:
    """Why it does not; None: it does. The modules are loaded, since nothing loads ``fou`` on demand; a dry run only
    asks whether they could be."""
    if _has_fou():
        return None
    options = ("--dry-run",) if dry_run else ()
    try:
        ended = await run("modprobe", "--all", *options, *MODULES, seconds=LOAD_SECONDS)
        said = " ".join(ended.errors.decode(errors="replace").split()) or f"exit status {ended.exit_code}"
        failed = ended.exit_code != 0
    except (OSError, TimeoutError) as error:
        said, failed = str(error) or "no answer", True
    if (dry_run and not failed) or _has_fou():
        return None
    return f"the kernel's module fou is not loaded, and `modprobe --all {' '.join(MODULES)}` says: {said}"


def _has_fou() -> bool:
    try:
        with GenericSocket(FAMILY):
            return True
    except NoFamily:
        return False
    except FlannelError:  # no netlink at all: said by whoever needs it
        return False
