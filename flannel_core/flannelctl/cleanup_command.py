"""``flannelctl cleanup``."""

from __future__ import annotations

import asyncio
import logging

from ..cleanup.removal import Cleanup, clean_up
from ..errors import EXIT_FAILED, EXIT_OK
from .agent_socket import DEFAULT_SUBNET_FILE, SubnetFile
from .output import clean, complain, say, show_json

MOST_LINES = 40
"""More objects at once are peers by the thousand: all of them would push everything else off the screen."""


def cleanup(*, dry_run: bool = False, json: bool = False, subnet_file: SubnetFile = DEFAULT_SUBNET_FILE) -> int:
    """Take flannel off this host: remove every device, route, traffic rule and file that is provably ours.

    Refuses while the agent runs. What another agent at work on this host has on record stays, and so does all that only
    looks like flannel's (a Go flannel's devices and chains, the CNI plugin's bridge): that is listed with the commands
    that remove it. Sysctls stay as they are, and so does the lease: `flannelctl lease release` gives it back.

    Exit code 0 if nothing of ours is left, 1 if an agent runs or something could not be removed, which then stays on
    record for the next time. Needs root.

    Parameters
    ----------
    dry_run
        Print what would be removed, and remove nothing.
    json
        Print it as JSON.
    subnet_file
        The subnet file of the agent that is meant; what it made is on record beside it.
    """
    logging.getLogger("flannel_core.reconciler").setLevel(logging.CRITICAL)  # what fails is in the result
    done = asyncio.run(clean_up(subnet_file, dry_run=dry_run))
    if json:
        show_json(done)
    else:
        _show(done)
    for kept in done.kept:
        complain(f"{kept.object} stays: {kept.reason}")
    return EXIT_FAILED if done.kept else EXIT_OK


def _show(done: Cleanup) -> None:
    verb = "would remove" if done.dry_run else "removed"
    for item in done.removed[:MOST_LINES]:
        say(f"{verb} {clean(item)}")
    if (more := len(done.removed) - MOST_LINES) > 0:
        say(f"{verb} {more} more (--json lists all)")
    for file in done.files:
        say(f"{verb} {clean(file)}")
    if not done.removed and not done.files and not done.kept:
        say("Nothing here is ours.")
    if done.subnets:
        subnet = clean(done.subnets[0])
        say(f"The lease of {subnet} stays until it expires; `flannelctl lease release {subnet}` gives it back.")
    if not done.look_alikes:
        return
    say()
    say("Not touched, because nothing proves it to be ours:")
    for alike in done.look_alikes:
        say(f"  {clean(alike.what)}: {clean(alike.why)}")
        for command in alike.commands:
            say(f"      {clean(command)}")
