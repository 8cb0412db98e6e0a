"""What is done to traffic rules: by hand, by another firewall's restart, by a script that starts from nothing."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from functools import partial

from .scene import RESYNC_SECONDS, Case, Outcome, Scene, run_all

ROW = "chains flushed, jumps removed or moved, a rule deleted"
TOOLS_SECONDS = 1.0
"""What the tools may take to read and write, once the resync period is over."""

MASQ = '-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
FORWARD = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
FOREIGN = "-s 203.0.113.1/32 -j DROP"
"""A rule of somebody else's, of TEST-NET-3 (RFC 5737)."""

PROGRAMS = ("iptables", "ip6tables")
IPTABLES = {
    "chains flushed": ["-F FLANNEL-FWD", "-t nat -F FLANNEL-POSTRTG"],
    "jumps removed": [f"-D FORWARD {FORWARD}", f"-t nat -D POSTROUTING {MASQ}"],
    "a rule deleted": ["-D FLANNEL-FWD 1", "-t nat -D FLANNEL-POSTRTG 3"],
    "every table flushed": ["-F", "-t nat -F"],
}
"""Without the program's name: done to both."""
NFT = {
    "chains flushed": ["flush chain {table} postrtg", "flush chain {table} forward"],
    "a chain deleted": ["flush chain {table} forward", "delete chain {table} forward"],
    "tables deleted": ["delete table {table}"],
    "everything flushed": ["flush ruleset"],
}
TABLES = ("ip flannel-ipv4", "ip6 flannel-ipv6")


REMOVED = f"""
*filter
-D FORWARD {FORWARD}
-F FLANNEL-FWD
-X FLANNEL-FWD
COMMIT
*nat
-D POSTROUTING {MASQ}
-F FLANNEL-POSTRTG
-X FLANNEL-POSTRTG
COMMIT
"""


def _within_the_resync_period(commands: Sequence[str], scene: Scene) -> Outcome:
    return scene.repaired(lambda: run_all(scene.a, commands), RESYNC_SECONDS + TOOLS_SECONDS)


def _jumps_and_chains_removed(scene: Scene) -> Outcome:
    """In one transaction: a chain that the agent jumps to again cannot be deleted."""
    scripts = [f"{program}-restore --noflush <<END {REMOVED}END" for program in PROGRAMS]
    return _within_the_resync_period([f"sh -c {shlex.quote(script)}" for script in scripts], scene)


def _jump_moved_behind_a_foreign_rule(scene: Scene) -> Outcome:
    a = scene.a
    a.run(f"iptables -A FORWARD {FOREIGN}")
    time.sleep(RESYNC_SECONDS + TOOLS_SECONDS)  # until the agent has seen where the jump stands among the others
    move = [f"iptables -D FORWARD {FORWARD}", f"iptables -A FORWARD {FORWARD}"]
    try:
        return _within_the_resync_period(move, scene)
    finally:
        a.run(f"iptables -D FORWARD {FOREIGN}")


def _one_nft_rule_deleted(scene: Scene) -> Outcome:
    commands = []
    for table in TABLES:
        listed = scene.a.run(f"nft --handle list chain {table} postrtg")
        last = re.findall(r"# handle (\d+)", listed)[-1]
        commands.append(f"nft delete rule {table} postrtg handle {last}")
    return _within_the_resync_period(commands, scene)


CASES = (
    *(
        Case(
            ROW,
            name,
            partial(_within_the_resync_period, [f"{program} {c}" for program in PROGRAMS for c in faults]),
            firewalls=("iptables",),
        )
        for name, faults in IPTABLES.items()
    ),
    Case(ROW, "jumps and chains removed", _jumps_and_chains_removed, firewalls=("iptables",)),
    Case(ROW, "a jump moved behind a foreign rule", _jump_moved_behind_a_foreign_rule, firewalls=("iptables",)),
    *(
        Case(
            ROW,
            name,
            partial(
                _within_the_resync_period,
                list(dict.fromkeys(f"nft {c.format(table=table)}" for table in TABLES for c in faults)),
            ),
            firewalls=("nft",),
        )
        for name, faults in NFT.items()
    ),
    Case(ROW, "a rule deleted", _one_nft_rule_deleted, firewalls=("nft",)),
)
