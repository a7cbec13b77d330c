"""Watches every engine pod's progress by its `/metrics`, and has a deployment looked at when one stops or goes on."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import httpx

from s1vl_operator.observe.progress import Standing, advance, has_moved, read_metrics

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 3.0
AT_ONCE = 32
"""Requests at the same time, however many engines there are."""
READS = 8
"""Readings within the time after which an engine counts as hung: it is noticed an eighth later at most."""

Key = tuple[str, str]
"""(namespace, name) of an S1VLDeployment."""


@dataclass(frozen=True)
class EnginePod:
    """One engine pod that has started.

    Attributes:
        uid: of the pod.
        url: of its HTTP server.
        timeout: seconds without progress after which it counts as hung.
        suspected: whether another operator, or this one before it lost its lead, has told orchestrators that it hangs.
    """

    uid: str
    url: str
    timeout: float
    suspected: bool = False


class Health(Protocol):
    """Tells which engine pods are hung."""

    def watch(self, key: Key, pods: Iterable[EnginePod]) -> frozenset[str]:
        """Watch these pods of a deployment and no others; returns the uids of those that are hung now."""

    def suspects(self, key: Key) -> frozenset[str]:
        """The uids of pods that were suspected when their watch began, and have neither moved nor had the time to.

        They are as good as hung, but for being restarted.
        """


class EngineHealth:
    """A Health by HTTP. Reads engine pods from `start` to `close`.

    Only pods that have started are to be watched: a model that is being loaded makes no steps. A pod that does not
    answer is forgotten: that is its liveness probe's business.

    Args:
        changed: told of a deployment of which a pod stopped making progress, or makes it again.
        time: a monotonic clock in seconds.
    """

    def __init__(self, changed: Callable[[Key], None], time: Callable[[], float]) -> None:
        self._changed = changed
        self._time = time
        self._pods: dict[Key, tuple[EnginePod, ...]] = {}
        self._standing: dict[str, Standing] = {}
        self._suspects: dict[str, float] = {}
        """Until when each pod that has no requests is suspected."""
        self._due: dict[str, float] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._http = httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read, in the running event loop."""
        self._task = asyncio.create_task(self._follow(), name="engine-health")

    async def close(self) -> None:
        """Stop, and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._http.aclose()

    def alive(self) -> bool:
        """Whether it still reads."""
        return self._task is not None and not self._task.done()

    def watch(self, key: Key, pods: Iterable[EnginePod]) -> frozenset[str]:
        """See `Health`."""
        before = {pod.uid for pod in self._pods.get(key, ())}
        self._pods[key] = tuple(pods)
        for pod in self._pods[key]:
            if pod.suspected and pod.uid not in before:
                self._suspects[pod.uid] = self._time() + pod.timeout
        if not self._pods[key]:
            del self._pods[key]
        for uid in before - {pod.uid for pod in self._pods.get(key, ())}:
            self._standing.pop(uid, None)
            self._suspects.pop(uid, None)
            self._due.pop(uid, None)
        return self._hung(key)

    def suspects(self, key: Key) -> frozenset[str]:
        """See `Health`."""
        return frozenset(pod.uid for pod in self._pods.get(key, ()) if pod.uid in self._suspects)

    async def _follow(self) -> None:
        while True:
            now = self._time()
            due = {key: pods for key, pods in self._pods.items() if any(self._due.get(p.uid, now) <= now for p in pods)}
            await asyncio.gather(*(self._read_all(key, pods) for key, pods in due.items()))
            shortest = min((pod.timeout for pods in self._pods.values() for pod in pods), default=READS)
            await asyncio.sleep(min(shortest / READS, 1.0))

    async def _read_all(self, key: Key, pods: tuple[EnginePod, ...]) -> None:
        before = self._hung(key), self.suspects(key)
        await asyncio.gather(*(self._read(pod) for pod in pods))
        if (self._hung(key), self.suspects(key)) != before:
            self._changed(key)

    async def _read(self, pod: EnginePod) -> None:
        self._due[pod.uid] = self._time() + pod.timeout / READS
        before = self._standing.get(pod.uid)
        try:
            # httpx limits each read, not the whole.
            async with self._at_once, asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._http.get(f"{pod.url}/metrics")
            answer.raise_for_status()
            readings = read_metrics(answer.text)
        except (TimeoutError, httpx.HTTPError, ValueError) as error:
            if self._standing.pop(pod.uid, None):
                logger.info("%s/metrics cannot be read: %r", pod.url, error)
            busy = known = False
        else:
            after = self._standing[pod.uid] = advance(before, readings, self._time(), pod.timeout)
            moved = before is not None and has_moved(before.readings, readings)
            busy, known = bool(after.since), moved or bool(after.hung)
        if known or (not busy and self._time() >= self._suspects.get(pod.uid, math.inf)):
            self._suspects.pop(pod.uid, None)

    def _hung(self, key: Key) -> frozenset[str]:
        pods = self._pods.get(key, ())
        return frozenset(pod.uid for pod in pods if (known := self._standing.get(pod.uid)) and known.hung)
