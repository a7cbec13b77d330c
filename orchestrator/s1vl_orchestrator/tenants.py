"""One tenant at run time: its gate, its queue, and the watch over its sandbox."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from s1vl_orchestrator.admission import Admission
from s1vl_orchestrator.canary import NOT_CHECKED, PathReason, PathStatus, check_paths
from s1vl_orchestrator.config import Tenant as TenantConfig
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.jobs import Place
from s1vl_orchestrator.sandbox import SandboxBusyError, SandboxUnavailableError
from s1vl_orchestrator.telemetry import Metrics, tenant_name

log = logging.getLogger(__name__)

SERVED_AT_ONCE = 1
"""Pictures of one tenant that are read and scaled at the same time; there are two threads for all tenants."""


@dataclass(frozen=True)
class WatchTimes:
    """How often a sandbox is looked at, in seconds."""

    canary: float = 60.0
    probe: float = 5.0
    retry_first: float = 1.0
    retry_most: float = 5.0
    orphans: float = 60.0


class Tenant:
    """A tenant that is configured now. It outlives changes of its configuration, so that its queue and gate do.

    Attributes:
        place: Where its jobs run from now on.
        serving: To be held while one of its pictures is read for a client.
        status: What the last canary said.
    """

    def __init__(
        self, config: TenantConfig, place: Place, workers: Workers, metrics: Metrics, times: WatchTimes
    ) -> None:
        self.name = config.name
        self.place = place
        self.status: PathStatus = NOT_CHECKED
        self.has_key = False
        self.admission = Admission(config.limits)
        self.serving = asyncio.Semaphore(SERVED_AT_ONCE)
        self._workers = workers
        self._metrics = metrics
        self._times = times
        self._wake = asyncio.Event()
        self._boot_id: str | None = None
        self._orphans_swept = 0.0
        metrics.jobs_running.labels(self.name).set_function(lambda: self.admission.running)
        metrics.jobs_queued.labels(self.name).set_function(lambda: self.admission.waiting)
        metrics.paths_consistent.labels(self.name).set(0)
        self._watch = asyncio.create_task(self._keep_watch(), name=f"watch-{self.name}")

    def update(self, config: TenantConfig, place: Place, *, has_key: bool) -> None:
        """Take a new configuration; what concerns paths or the sandbox closes the gate until it is proven again."""
        self.admission.update(config.limits)
        self.has_key = has_key
        moved = (place.paths, place.sandbox.url) != (self.place.paths, self.place.sandbox.url)
        self.place = place
        if moved:
            self.status = NOT_CHECKED
        self.recheck()

    def recheck(self) -> None:
        """Send a canary now."""
        self._wake.set()

    def check_gate(self) -> None:
        """Let nothing through unless the last canary came back.

        Raises:
            ApiError: `sandbox_starting` or `paths_inconsistent`, with Retry-After.
        """
        if self.status.consistent:
            return
        wrong = self.status.reason in (PathReason.MISMATCH, PathReason.WRITE_FAILED)
        raise ApiError(
            ErrorCode.PATHS_INCONSISTENT if wrong else ErrorCode.SANDBOX_STARTING,
            self.status.message,
            {"reason": self.status.reason.value},
            retry_after=self._times.retry_most,
        )

    def describe(self) -> dict[str, object]:
        """The tenant's entry in `GET /internal/tenants`."""
        status = self.status
        if not self.has_key:
            reason, message = "KeyMissing", "The tenant's API key Secret does not exist, so nobody can be this tenant."
        elif status.consistent:
            reason, message = "Ready", ""
        elif status.reason is PathReason.UNREACHABLE:
            reason, message = "SandboxStarting", status.message
        elif status.reason is PathReason.NOT_CHECKED:
            reason, message = "NotChecked", status.message
        else:
            reason, message = "PathsInconsistent", status.message
        return {
            "name": self.name,
            "ready": reason == "Ready",
            "reason": reason,
            "message": message,
            "paths": {
                "consistent": status.consistent,
                "reason": status.reason.value,
                "message": status.message,
                "checkedAt": status.checked_at.isoformat().replace("+00:00", "Z") if status.checked_at else None,
            },
            "jobsRunning": self.admission.running,
        }

    async def close(self) -> None:
        """Stop watching and try a last time to delete sessions that are left."""
        self._watch.cancel()
        await asyncio.wait([self._watch])
        for gauge in (self._metrics.jobs_running, self._metrics.jobs_queued, self._metrics.paths_consistent):
            gauge.remove(self.name)
        try:
            await self.place.sweeper.sweep(self.place.sandbox)
        except SandboxUnavailableError as error:
            log.warning("sessions of %s are left to expire: %s", self.name, error)

    async def _keep_watch(self) -> None:
        tenant_name.set(self.name)
        pause = self._times.retry_first
        while True:
            self._wake.clear()
            try:
                await self._check()
                if self.status.consistent:
                    pause = self._times.retry_first
                    await self._until_doubtful()
                    continue
            except Exception:  # The watch must outlive any defect: without it the gate would stay as it is for ever.
                log.exception("the watch over the sandbox failed")
            await self._sleep(pause)
            pause = min(self._times.retry_most, pause * 2)

    async def _check(self) -> None:
        place = self.place
        try:
            # Before the canary: a pod that is replaced after it must be seen as another one.
            self._boot_id = await place.sandbox.boot_id()
        except SandboxUnavailableError:
            self._boot_id = None
        try:
            status = await check_paths(self.name, place.paths, place.sandbox, place.sweeper, self._workers)
        except SandboxBusyError as error:
            log.info("no session for the canary: %s", error)
            return
        if place is not self.place and place.paths != self.place.paths:
            return
        self._metrics.canaries.labels(self.name, status.reason.value).inc()
        self._metrics.paths_consistent.labels(self.name).set(1 if status.consistent else 0)
        if (status.reason, status.consistent) != (self.status.reason, self.status.consistent):
            log.log(logging.INFO if status.consistent else logging.WARNING, "%s", status.message)
        self.status = status

    async def _until_doubtful(self) -> None:
        """Wait until it is time for the next canary, or the sandbox is another one or gone."""
        due = time.monotonic() + self._times.canary
        while time.monotonic() < due:
            if await self._sleep(min(self._times.probe, max(0.0, due - time.monotonic()))):
                return
            sandbox = self.place.sandbox
            try:
                if await sandbox.boot_id() != self._boot_id:
                    log.info("the sandbox is another process now")
                    return
                orphans = time.monotonic() - self._orphans_swept >= self._times.orphans
                await self.place.sweeper.sweep(sandbox, orphans=orphans)
                if orphans:
                    self._orphans_swept = time.monotonic()
            except SandboxUnavailableError as error:
                log.warning("the sandbox does not answer: %s", error)
                return

    async def _sleep(self, seconds: float) -> bool:
        """Sleep; returns True at once when a canary is asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True
