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

from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.informer import Interrupted
from s1vl_operator.leader import LeaderElector, LeadershipLost
from s1vl_operator.settings import Settings
from s1vl_operator.surroundings import Surroundings
from s1vl_operator.tasks import cancel, unless
from s1vl_operator.telemetry import Metrics
from s1vl_operator.term import Term
from s1vl_operator.web import WebServer

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
"""After the watching failed; another replica, if there is one, has the Lease by then."""


class Operator:
    """One replica.

    Args:
        settings: what it was told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._elector: LeaderElector | None = None
        self._term: Term | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, standing by or leading. An API server that is away is waited for.

        Raises:
            Exception: something that a new process, or a person, may mend.
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
            self._elector = elector
            self._metrics.watch_leader(elector.leads)
            surroundings = Surroundings(self._settings, cluster, os.environ, time.monotonic)
            writing = cluster.writing_while(elector.leads)
            while not stopped.is_set() and await unless(stopped, elector.acquire()):
                self._term = Term(self._settings, writing, surroundings, self._metrics, elector)
                try:
                    await _lead(self._term, elector, stopped)
                except LeadershipLost as lost:
                    logger.warning("Standing by again: %s", lost)
                except Interrupted as interrupted:
                    logger.warning("Standing by again: %s", interrupted)
                    await unless(stopped, asyncio.sleep(AGAIN_SECONDS))
                finally:
                    self._term = None

    def health(self) -> str:
        """What a restart would mend; "" when work moves. An API server that is away is not among it."""
        return self._term.health() if self._term else ""

    def readiness(self) -> str:
        """What keeps this replica from its work; standing by is its work as well."""
        unknown = self._elector.problem() if self._elector else "it is starting"
        return unknown or (self._term.readiness() if self._term else "")


async def _lead(term: Term, elector: LeaderElector, stopped: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(elector.release)
        # Renewed while the workers finish, too.
        held = asyncio.create_task(elector.hold(), name="lease")
        stack.push_async_callback(cancel, held)
        await term.run(stopped, held)


def run(settings: Settings, entry: Callable[[Operator], Awaitable[None]] = Operator.run) -> None:
    """Run an operator in an event loop of its own."""

    async def main() -> None:
        await entry(Operator(settings))

    # One more series for each counter, for nothing.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    asyncio.run(main())
