"""The engine's pods: found by DNS, watched, and given to jobs, each of which stays at one as long as that works."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from s1vl_orchestrator.addresses import Resolve, at_address, resolve_host
from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.engine_errors import Cause, EngineUnavailableError, TryAgainError
from s1vl_orchestrator.engine_pod import HUNG, Pod
from s1vl_orchestrator.pod_choice import Draw, Standing, choose
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

WATCH_SECONDS = 3.0
"""How often names are resolved and pods asked for their health; CoreDNS answers from its cache for 5 s by default."""
WATCH_LEAST_SECONDS = 0.5
"""Between two rounds when failures ask for one at once."""


class EnginePods:
    """All pods of the engine.

    Attributes:
        problem: Why no pod takes requests, or "".
    """

    def __init__(self, metrics: Metrics, resolve: Resolve = resolve_host, draw: Draw = random.choice) -> None:
        self.problem = "the engine has not been asked yet"
        self.metrics = metrics
        self._resolve = resolve
        self._draw = draw
        self._url = ""
        self._host = ""
        self._hung: frozenset[str] = frozenset()
        self._listed: list[Pod] = []
        self._unlisted: list[Pod] = []
        self._wakes = (asyncio.Event(), asyncio.Event())
        self._tasks: list[asyncio.Task[None]] = []
        self._dns_problem = ""

    def follow(self, config: Engine, hung: Iterable[str]) -> None:
        """Take over where the engine is, and which pods hang, by address; begins to watch it at the first call."""
        target = config.url.rstrip("/"), config.pods_host
        if target != (self._url, self._host):
            self._url, self._host = target
            self._list([self._url])
            self._wakes[0].set()
        before, self._hung = self._hung, frozenset(hung)
        for pod in (*self._listed, *self._unlisted):
            self._mark(pod)
        if self._hung - before:
            self._doubt()
        if not self._tasks:
            steps = (self._find, self._probe)
            self._tasks = [
                asyncio.create_task(self._watch(step, wake)) for step, wake in zip(steps, self._wakes, strict=True)
            ]

    async def close(self) -> None:
        """Stop watching and close all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        pods, self._listed, self._unlisted = [*self._listed, *self._unlisted], [], []
        for pod in pods:
            await self._forget(pod)

    def describe(self) -> list[dict[str, Any]]:
        """The pods' entries in `GET /internal/tenants`: those that take requests, and those that finish some."""
        return [pod.describe() for pod in (*self._listed, *self._unlisted)]

    def choose(self, failures: Mapping[str, int]) -> Pod:
        """The pod for a new seat, given how often which address failed the request.

        Raises:
            EngineUnavailableError: If all of them hang: who waited there would wait in vain.
        """
        if all(pod.hung for pod in self._listed):
            raise EngineUnavailableError(f"every pod of it hangs: {HUNG}")
        pods = {pod.address: pod for pod in self._listed}
        standings = [
            Standing(address, pod.seats, failures.get(address, 0), bool(pod.avoided)) for address, pod in pods.items()
        ]
        return pods[choose(standings, self._draw).address]

    def rounds(self, failures: Mapping[str, int]) -> int:
        """How often each pod failed a request, at least."""
        return min(failures.get(pod.address, 0) for pod in self._listed)

    def failed(self, pod: Pod, failure: TryAgainError) -> None:
        """Note that a pod failed a request."""
        pod.failed(failure)
        if failure.cause == Cause.REFUSED:
            for wake in self._wakes:
                wake.set()

    async def _watch(self, step: Callable[[], Awaitable[None]], wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            try:
                await step()
            except Exception:  # One bad round must not end all following ones.
                log.exception("watching the engine's pods failed")
            await asyncio.sleep(WATCH_LEAST_SECONDS)
            try:
                async with asyncio.timeout(WATCH_SECONDS - WATCH_LEAST_SECONDS):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _find(self) -> None:
        """Resolve the name, and let go of pods that are gone and no longer used."""
        host, url = self._host, self._url
        if host:
            try:
                addresses = await self._resolve(host)
            except OSError as error:
                # Nobody can be asked, which says nothing about the pods: they stay.
                if not self._dns_problem:
                    log.warning("cannot resolve %s: %s", host, error)
                self._dns_problem = str(error)
            else:
                self._dns_problem = ""
                if (host, url) == (self._host, self._url):
                    self._list([at_address(url, address) for address in sorted(set(addresses))] or [url])
        for pod in [pod for pod in self._unlisted if not pod.requests]:
            self._unlisted.remove(pod)
            await self._forget(pod)

    def _list(self, urls: list[str]) -> None:
        """Let exactly these take new turns."""
        known = {pod.url: pod for pod in (*self._listed, *self._unlisted)}
        if urls == [pod.url for pod in self._listed]:
            return
        before = self._listed
        self._listed = [known.get(url) or self._new(url) for url in urls]
        for pod in self._listed:
            if not pod.listed:
                pod.back()
        for pod in before:
            pod.listed = pod in self._listed
        self._unlisted = [pod for pod in known.values() if not pod.listed]
        log.info("engine pods: %s", ", ".join(pod.address for pod in self._listed))
        self._wakes[1].set()
        if self._hung:
            self._doubt()

    def _new(self, url: str) -> Pod:
        pod = Pod(url)
        self._mark(pod)
        self.metrics.engine_requests.labels(pod.address).set_function(lambda: pod.requests)
        return pod

    def _mark(self, pod: Pod) -> None:
        hung = (urlsplit(pod.url).hostname or "") in self._hung
        if hung != pod.hung:
            log.warning("engine pod %s: %s", pod.address, HUNG if hung else "it computes again")
            pod.hang(hung)

    def _doubt(self) -> None:
        """Free those who went to the Service's name, before the pods were known: they may wait for one that hangs."""
        for pod in (*self._listed, *self._unlisted):
            if self._host and pod.url == self._url:
                pod.doubt()

    async def _forget(self, pod: Pod) -> None:
        self.metrics.engine_requests.remove(pod.address)
        await pod.close()

    async def _probe(self) -> None:
        pods = list(self._listed)
        await asyncio.gather(*(pod.probe() for pod in pods))
        if pods == self._listed:
            problems = [f"{pod.url}: {HUNG}" if pod.hung else pod.unhealthy or "" for pod in pods]
            self.problem = "" if not all(problems) else "; ".join(problems[:3])
