"""The client of the benches: sends jobs and judges what comes back."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from bench.scripted import answer, told

PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Answered:
    """One answer. Times are `time.perf_counter()`."""

    status: int
    body: bytes
    began: float
    ended: float

    @property
    def result(self) -> dict[str, Any]:
        """The body, which is JSON."""
        data: dict[str, Any] = json.loads(self.body)
        return data


class Client:
    """Sends jobs to one server over kept connections."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/process"
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        self.session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def send(self, body: bytes) -> Answered:
        """Send one job's body."""
        began = time.perf_counter()
        # A file, not bytes: these would be copied into the connection's buffer as a whole.
        async with self.session.post(
            self._url, data=io.BytesIO(body), headers={"Content-Type": "application/json"}
        ) as answer:
            content = await answer.read()
            return Answered(answer.status, content, began, time.perf_counter())

    async def right(self, body: bytes, job: int, size: int, pictures: int) -> Answered:
        """Send one job that must be answered rightly; `size` and `pictures` as in `bench.scripted.answer`.

        Raises:
            RuntimeError: If it is not.
        """
        got = await self.send(body)
        expected = answer(job, size, pictures)
        if got.status != HTTPStatus.OK or told(got.result) != expected:
            raise RuntimeError(f"job {job}: HTTP {got.status} {got.body[-600:]!r} instead of {expected!r}")
        return got


async def jobs_per_second(
    client: Client, count: int, at_once: int, body: Callable[[int], bytes], *, size: int, pictures: int
) -> float:
    """Run `count` jobs, `at_once` at a time, all of which must be right."""
    numbers = iter(range(1, count + 1))

    async def work() -> None:
        for job in numbers:
            await client.right(body(job), job, size, pictures)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return count / (time.perf_counter() - began)


async def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds. Raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.001)
