"""The operator's process: from standing by to leading to leaving in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import prometheus_client

from s1vl_operator.cluster.apply import Applier
from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.kinds import S1VL_DEPLOYMENT
from s1vl_operator.engine_health import EngineHealth
from s1vl_operator.informer import Informer
from s1vl_operator.leader import LeaderElector
from s1vl_operator.orchestrator_probe import OrchestratorProbe
from s1vl_operator.queue import WorkQueue
from s1vl_operator.reconcile import Key, Reconciler
from s1vl_operator.settings import Settings
from s1vl_operator.surroundings import REFRESH_SECONDS, Surroundings
from s1vl_operator.telemetry import Metrics
from s1vl_operator.web import WebServer

logger = logging.getLogger(__name__)

STUCK_SECONDS = 300.0
"""A run that takes longer hangs: every request has a timeout of 30 s."""
GRACE_SECONDS = 20.0
"""Time that running reconciliations get; the pod has 30 s in all."""


class Operator:
    """One replica.

    Args:
        settings: what it was told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._queue: WorkQueue[Key] | None = None
        self._informer: Informer | None = None
        self._engines: EngineHealth | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            LeadershipLost: another replica may lead now.
            RuntimeError: the watching ended by itself.
        """
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with AsyncExitStack() as stack:
            web = WebServer(self._metrics, self.health, self.readiness)
            port = await web.start(self._settings.http_port)
            stack.push_async_callback(web.close)
            logger.info("Serving /healthz, /readyz and /metrics on port %d", port)
            cluster = await KubernetesCluster.connect(self._metrics.request)
            stack.push_async_callback(cluster.close)
            elector = LeaderElector(
                cluster,
                namespace=self._settings.namespace,
                name=self._settings.lease_name,
                identity=self._settings.pod_name,
                monotonic=time.monotonic,
            )
            if not await _unless(stopped, elector.acquire()):
                return
            stack.push_async_callback(elector.release)
            # Renewed while the workers finish, too.
            held = asyncio.create_task(elector.hold(), name="lease")
            stack.push_async_callback(_cancel, held)
            self._metrics.leads(True)
            await self._lead(cluster, held, stopped)

    def health(self) -> str:
        """What a restart would mend; "" when work moves."""
        if self._queue is not None and not self._queue.alive():
            return "a worker has ended"
        if self._queue is not None and self._queue.oldest() > STUCK_SECONDS:
            return f"a reconciliation has run for {self._queue.oldest():.0f} s"
        if self._informer is not None and not self._informer.alive:
            return "the cluster is not watched"
        if self._engines is not None and not self._engines.alive():
            return "the engines' progress is not watched"
        return ""

    def readiness(self) -> str:
        """What keeps this replica from its work; standing by is its work as well."""
        if self._informer is not None and not self._informer.ready:
            return "the watching has not started yet"
        return self.health()

    async def _lead(self, cluster: KubernetesCluster, held: asyncio.Task[None], stopped: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            surroundings = Surroundings(self._settings, cluster, os.environ)
            if not await _unless(stopped, _prepare(cluster, surroundings), held):
                return
            probe = OrchestratorProbe()
            stack.push_async_callback(probe.close)
            health = EngineHealth(lambda key: queue.add(key), time.monotonic)  # noqa: PLW0108 (it comes later)
            stack.push_async_callback(health.close)
            reconciler = Reconciler(
                cluster=cluster,
                applier=Applier(cluster, time.monotonic),
                probe=probe,
                health=health,
                context=surroundings.context,
                metrics=self._metrics,
                instance=self._settings.pod_name,
            )

            async def work(key: Key) -> float | None:
                with self._metrics.reconcile():
                    return await reconciler(key)

            queue = WorkQueue(work, workers=self._settings.workers, clock=asyncio.get_running_loop())
            informer = Informer(lambda ns, name, now: queue.add((ns, name), urgent=now), self._settings.namespaces)
            self._metrics.watch_queue(lambda: queue.depth, lambda: queue.busy, queue.oldest)
            queue.start()
            health.start()
            # The last to start is the first to stop: nothing new comes in while what runs is finished.
            stack.push_async_callback(self._end, informer, queue)
            informer.start()
            self._queue, self._informer, self._engines = queue, informer, health
            refresh = asyncio.create_task(_refresh(surroundings), name="surroundings")
            stack.push_async_callback(_cancel, refresh)
            await _unless(stopped, informer.ended.wait(), held)
            if not stopped.is_set():
                raise RuntimeError("the watching ended") from informer.error

    async def _end(self, informer: Informer, queue: WorkQueue[Key]) -> None:
        self._queue = self._informer = self._engines = None
        await informer.stop()
        await queue.close(GRACE_SECONDS)


async def _prepare(cluster: KubernetesCluster, surroundings: Surroundings) -> None:
    """Wait for the CRD, which may be installed together with us, and look around."""
    said = False
    while not await cluster.served(S1VL_DEPLOYMENT.api_version, S1VL_DEPLOYMENT.plural):
        if not said:
            logger.warning("Waiting for the CRD %s.%s", S1VL_DEPLOYMENT.plural, S1VL_DEPLOYMENT.group)
            said = True
        await asyncio.sleep(1)
    await surroundings.refresh()


async def _refresh(surroundings: Surroundings) -> None:
    """Every S1VLDeployment is looked at at least twice a minute, so that nobody needs to be told of a change."""
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        if await surroundings.refresh():
            logger.info("The surroundings changed: %s", surroundings.context())


async def _unless(stopped: asyncio.Event, wanted: Awaitable[object], *others: asyncio.Task[None]) -> bool:
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
        await _cancel(stop)
        await _cancel(task)


async def _cancel(task: asyncio.Future[object] | asyncio.Task[None] | asyncio.Task[bool]) -> None:
    task.cancel()
    await asyncio.wait([task])


def run(settings: Settings, entry: Callable[[Operator], Awaitable[None]] = Operator.run) -> None:
    """Run an operator in an event loop of its own."""

    async def main() -> None:
        await entry(Operator(settings))

    # One more series for each counter, for nothing.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    asyncio.run(main())
