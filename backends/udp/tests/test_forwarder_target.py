"""What the agent takes a forwarder for that is about to end. Its socket is a real one with nobody at work behind it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from flannel_backend_udp.forwarder_target import ForwarderTarget
from flannel_core.target import Scope


def test_a_forwarder_that_ends_while_it_is_asked_is_none(tmp_path: Path) -> None:
    async def read() -> None:
        target = ForwarderTarget(tmp_path)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(target.path))
            listening.listen()
            reading = asyncio.create_task(target.read(Scope()))
            await asyncio.sleep(0)  # it has asked, and waits
            assert not reading.done()
            target.path.unlink()
        assert await reading == []
        await target.close()

    asyncio.run(read())
