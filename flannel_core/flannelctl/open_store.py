"""The store that a command line names, open for one question, within bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..errors import FlannelError
from ..flanneld_options import Parsed, StoreChoice
from ..store import StoreContext, StoreUnavailable, SubnetStore

STORE_SECONDS = 10.0
"""How long a store may take to answer before the command gives up."""


@asynccontextmanager
async def open_store(parsed: Parsed[StoreChoice], seconds: float | None = None) -> AsyncIterator[SubnetStore[Any]]:
    """The store, open for STORE_SECONDS or so many ``seconds``. What it cannot answer becomes a FlannelError."""
    seconds = STORE_SECONDS if seconds is None else seconds
    context = StoreContext(state_directory=parsed.options.subnet_file.parent)
    store = parsed.store_class(parsed.store_options, context)
    try:
        async with asyncio.timeout(seconds):
            await store.open()
            yield store
    except StoreUnavailable as error:
        raise FlannelError(f"the store {parsed.store_name} does not answer: {error}") from None
    except TimeoutError:
        raise FlannelError(
            f"the store {parsed.store_name} does not answer within {seconds:.0f} s"
            + (f": {store.unavailable}" if store.unavailable else "")
        ) from None
    finally:
        await store.close()
