"""Waiting for several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


async def unless(stopped: asyncio.Event, wanted: Awaitable[object], *others: asyncio.Task[None]) -> bool:
    """Wait for `wanted`; returns False when `stopped` came first, and raises what it or one of `others` raised."""
    task = asyncio.ensure_future(wanted)
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([task, stop, *others], return_when=asyncio.FIRST_COMPLETED)
        for one in (*others, task):
            if one.done():
                one.result()
        return task.done()
    finally:
        await cancel(stop)
        await cancel(task)


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait([task])
