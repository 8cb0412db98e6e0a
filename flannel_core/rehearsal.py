"""What a restart with another net-conf.json would change on this host: a whole start, dry, beside the running agent."""

from __future__ import annotations

import asyncio

import msgspec

from .agent import Agent
from .errors import FlannelError
from .klog import SILENT
from .status import RestartPlan
from .status_report import lines_of
from .store import ConfigText

SECONDS = 8.0
"""How long it may take: less than whoever asks waits for an answer."""


async def rehearse(agent: Agent, text: bytes) -> RestartPlan:
    """With the options of ``agent``, and a store of its own that writes nothing. Raises FlannelError where such a start
    would wait or end."""
    store = type(agent.store)(agent.store.options, msgspec.structs.replace(agent.store.context, dry_run=True))
    understudy = Agent(msgspec.structs.replace(agent.options, dry_run=True), agent.store_name, store)
    silent = SILENT.set(True)
    try:
        async with asyncio.timeout(SECONDS):
            lines = lines_of(await understudy.dry_run(ConfigText(text, "the configuration given")))
    except TimeoutError:
        raise FlannelError(
            store.unavailable or f"a dry run did not end within {SECONDS:.0f} s; the store may be slow"
        ) from None
    finally:
        SILENT.reset(silent)
    assert understudy.config.chosen is not None
    changes, live = agent.config.compare(understudy.config.chosen)
    held = agent.member.own.lease
    return RestartPlan(
        changes=tuple(changes),
        live=live,
        subnets=tuple(map(str, held.subnets)) if held else (),
        subnets_then=tuple(map(str, understudy.member.own.held.subnets)),
        lines=tuple(lines),
    )
