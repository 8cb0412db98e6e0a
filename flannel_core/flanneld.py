"""flanneld: read the options, load the one store they name, run the agent. Exit codes are in errors.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import EXIT_FAILED, EXIT_OK, FlannelError
from .flanneld_options import Answer, FlanneldOptions, Parsed, parse
from .klog import configure
from .store import StoreContext, SubnetStore

log = logging.getLogger(__name__)

CAP_NET_ADMIN = 12
"""linux/capability.h."""


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], os.environ))


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code of ``flanneld argv``. Nothing is raised, and no traceback is printed."""
    try:
        parsed = parse(argv, environ)
    except FlannelError as error:
        print(f"flanneld: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(parsed, Answer):
        print(parsed.text, end="", file=sys.stderr if parsed.to_stderr else sys.stdout)
        return EXIT_OK
    configure(parsed.options.log_format, parsed.options.verbosity)
    try:
        return asyncio.run(_run(parsed))
    except FlannelError as error:
        log.critical("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception:
        log.critical("This is a fault in flannel; please report it", exc_info=True)
        return EXIT_FAILED


def _require_privilege() -> None:
    """Raises FlannelError if this process may not change the host's network. Said at once, not when the first device
    or state file fails."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if not int(status["CapEff"], 16) >> CAP_NET_ADMIN & 1:
        raise FlannelError("flanneld changes this host's network: run it as root, or give it CAP_NET_ADMIN")


async def _run(parsed: Parsed[FlanneldOptions]) -> int:
    from .agent import Agent
    from .control import serving

    # What start-up made is there for good: it need not be looked through at each collection.
    gc.freeze()
    agent = Agent(parsed.options, parsed.store_name, _store(parsed))
    if not parsed.options.dry_run:
        _require_privilege()
        return await agent.run(serving(agent))
    from .status_report import lines_of

    lines = lines_of(await agent.dry_run())
    for line in lines:
        held = f"; held: {line.held}" if line.held else ""
        print(f"{line.action} {line.object} ({line.cause}{held})")
    if not lines:
        print("nothing to do")
    return EXIT_OK


def _store(parsed: Parsed[FlanneldOptions]) -> SubnetStore[Any]:
    path = parsed.options.net_config_path if "net-config-path" in parsed.given else None
    return parsed.store_class(
        parsed.store_options, StoreContext(parsed.options.subnet_file.parent, path, parsed.options.dry_run)
    )
