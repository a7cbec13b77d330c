"""One term of leadership: everything that is there only while this replica leads."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from s1vl_operator.cluster.apply import Applier
from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.kinds import S1VL_DEPLOYMENT
from s1vl_operator.cluster.port import ApiError, Unreachable
from s1vl_operator.engine_health import EngineHealth
from s1vl_operator.informer import Informer
from s1vl_operator.leader import LeaderElector
from s1vl_operator.orchestrator_probe import OrchestratorProbe
from s1vl_operator.queue import WorkQueue
from s1vl_operator.reconcile import Key, Reconciler
from s1vl_operator.settings import Settings
from s1vl_operator.surroundings import REFRESH_SECONDS, Surroundings
from s1vl_operator.tasks import cancel, unless
from s1vl_operator.telemetry import Metrics

logger = logging.getLogger(__name__)

STUCK_SECONDS = 300.0
"""A run that takes longer hangs: every request has a timeout of 30 s."""
GRACE_SECONDS = 20.0
"""Time that running reconciliations get when this replica leaves; the pod has 45 s in all."""
REFUSED_SECONDS = 20.0
"""An API server that has just started refuses what it will soon allow; after so long it means it."""
SETTLE_SECONDS = 30.0
"""Orchestrators renew the Leases of sandboxes that are in use every 10 s at the latest."""
RESYNC_SECONDS = 60.0
"""Between two looks at which custom resources there are. Each that is known is looked at more often than that: this one
is for what a watch never told of, and costs one request."""


class Term:
    """From beginning to lead to having stopped.

    Args:
        settings: what the operator was told.
        cluster: that takes writes only while this replica leads.
        surroundings: outlive the term, for they are known even while the API server is away.
        metrics: likewise.
        elector: knows whether this replica still leads.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: KubernetesCluster,
        surroundings: Surroundings,
        metrics: Metrics,
        elector: LeaderElector,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._surroundings = surroundings
        self._metrics = metrics
        self._elector = elector
        self._queue: WorkQueue[Key] | None = None
        self._informer: Informer | None = None
        self._engines: EngineHealth | None = None

    async def run(self, stopped: asyncio.Event, held: asyncio.Task[None]) -> None:
        """Lead until `stopped` is set, with all that was begun finished, or until there is an error.

        Args:
            stopped: set when the process is to end.
            held: renews the Lease; raises when that is lost, and then nothing is finished any more.

        Raises:
            LeadershipLost: another replica may lead now.
            Interrupted: the watching ended for a reason that passes.
            Exception: it ended for one that does not.
        """
        async with AsyncExitStack() as stack:
            if not await unless(stopped, self._prepare(), held):
                return
            probe = OrchestratorProbe()
            stack.push_async_callback(probe.close)
            engines = EngineHealth(lambda key: queue.add(key), time.monotonic)  # noqa: PLW0108 (it comes later)
            stack.push_async_callback(engines.close)
            stack.callback(self._metrics.forget_all)
            reconciler = Reconciler(
                cluster=self._cluster,
                applier=Applier(self._cluster, time.monotonic),
                probe=probe,
                health=engines,
                context=self._surroundings.context,
                metrics=self._metrics,
                instance=self._settings.pod_name,
                settled=datetime.now(UTC) + timedelta(seconds=SETTLE_SECONDS),
            )

            async def work(key: Key) -> float | None:
                with self._metrics.reconcile():
                    return await reconciler(key)

            queue = WorkQueue(work, workers=self._settings.workers, clock=asyncio.get_running_loop())
            informer = Informer(lambda ns, name, now: queue.add((ns, name), urgent=now), self._settings.namespaces)
            self._metrics.watch_queue(lambda: queue.depth, lambda: queue.busy, queue.oldest)
            queue.start()
            engines.start()
            stack.push_async_callback(self._end, informer, queue)
            informer.start()
            self._queue, self._informer, self._engines = queue, informer, engines
            others = [asyncio.create_task(self._refresh()), asyncio.create_task(self._resync(queue))]
            for task in others:
                stack.push_async_callback(cancel, task)
            if await unless(stopped, informer.ended.wait(), held, *others):
                raise informer.failure()

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
        """What keeps it from its work; "" when nothing does."""
        if self._informer is not None and not self._informer.ready:
            return "the watching has not started yet"
        return self.health()

    async def _end(self, informer: Informer, queue: WorkQueue[Key]) -> None:
        self._queue = self._informer = self._engines = None
        # Somebody else may begin in a moment: what has been begun is left to them.
        grace = GRACE_SECONDS if self._elector.leads() else 0.0
        await asyncio.gather(queue.close(grace), informer.stop())

    async def _prepare(self) -> None:
        """Wait for the CRD, which may be installed together with us, and look around.

        Raises:
            ApiError: refused for longer than a starting API server refuses.
        """
        loop, told = asyncio.get_running_loop(), ""
        refused = loop.time() + REFUSED_SECONDS
        while True:
            try:
                if await self._cluster.served(S1VL_DEPLOYMENT.api_version, S1VL_DEPLOYMENT.plural):
                    await self._surroundings.refresh()
                    return
                state = f"Waiting for the CRD {S1VL_DEPLOYMENT.plural}.{S1VL_DEPLOYMENT.group}"
                refused = loop.time() + REFUSED_SECONDS
            except Unreachable as error:
                # The Lease says when this is over.
                state = f"Cannot look around: {error}"
            except ApiError as error:
                if loop.time() > refused:
                    raise
                state = f"Cannot look around: {error}"
            if state != told:
                logger.warning("%s", state)
                told = state
            await asyncio.sleep(1)

    async def _refresh(self) -> None:
        """Every S1VLDeployment is looked at at least twice a minute, so that nobody needs to be told of a change."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if await self._surroundings.refresh():
                logger.info("The surroundings changed: %s", self._surroundings.context())

    async def _resync(self, queue: WorkQueue[Key]) -> None:
        """Look at what is there, and at what is remembered and may be gone."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            found: set[Key] = set()
            try:
                for namespace in self._settings.namespaces or ("",):
                    items = await self._cluster.list(S1VL_DEPLOYMENT, namespace)
                    found |= {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in items}
            except (ApiError, Unreachable) as error:
                logger.warning("Cannot list the S1VLDeployments: %s", error)
                continue
            for key in found.union(self._metrics.known()):
                queue.add(key)
