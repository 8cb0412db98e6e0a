"""``flannelctl plan``: what the agent would change, now or after a restart with another configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from ..errors import EXIT_FAILED, EXIT_OK
from ..status import PlanLine, RestartPlan
from .agent_socket import DEFAULT_SUBNET_FILE, SubnetFile, ask
from .config_command import valid_config
from .output import clean, say, show_json, show_table
from .status_command import understood


def plan(
    *,
    config: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    json: bool = False,
    subnet_file: SubnetFile = DEFAULT_SUBNET_FILE,
) -> int:
    """Show what the agent's next pass would change on this host, each line with its cause; change nothing.

    With --config: what a restart with that network configuration would change. It is checked first, as `config check`
    does; the agent then goes through a whole start with it, and writes nothing anywhere.

    Parameters
    ----------
    config
        A net-conf.json that is not in use yet; - reads standard input.
    json
        Print it as JSON.
    subnet_file
        The subnet file of the agent that is meant; its socket lies beside it.
    """
    if config is not None:
        return _restart_plan(config, json, subnet_file)
    body = ask(subnet_file, "/plan")
    lines = understood(body, list[PlanLine], subnet_file)
    if json:
        show_json(body)
    elif lines:
        _show_lines(lines)
    else:
        say("Nothing to do: this host is as it should be.")
    return EXIT_OK


def _restart_plan(file: str, json: bool, subnet_file: SubnetFile) -> int:
    if (valid := valid_config(file)) is None:
        return EXIT_FAILED
    text, source = valid
    body = ask(subnet_file, "/plan", text)
    found = understood(body, RestartPlan, subnet_file)
    if json:
        show_json(body)
        return EXIT_OK
    for change in found.changes:
        say(f"{clean(source)}: {clean(change)}")
    if found.changes:
        say(
            "The running agent would apply this by itself."
            if found.live
            else "Only a restart of the agent applies this."
        )
    else:
        say(f"{clean(source)}: the same as what is in use")
    if found.subnets_then != found.subnets:
        say(
            f"This host would give up {clean(' and '.join(found.subnets) or 'nothing')} and take a subnet such as "
            f"{clean(' and '.join(found.subnets_then))}: its containers would have to be made again."
        )
    say()
    if found.lines:
        _show_lines(found.lines)
    else:
        say("Nothing would change on this host.")
    return EXIT_OK


def _show_lines(lines: Sequence[PlanLine]) -> None:
    show_table(
        ("ACTION", "OBJECT", "CAUSE", "NOT YET BECAUSE"),
        [(line.action, line.object, line.cause, line.held or "") for line in lines],
    )
