"""One tenant at run time: its gate, its queue, and where its jobs run."""

from __future__ import annotations

import asyncio

from s1vl_orchestrator.admission import Admission
from s1vl_orchestrator.canary import PathReason, PathStatus
from s1vl_orchestrator.config import Tenant as TenantConfig
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.jobs import Place
from s1vl_orchestrator.leases import Usage
from s1vl_orchestrator.telemetry import Metrics

SERVED_AT_ONCE = 1
"""Pictures of one tenant that are read and scaled at the same time; there are two threads for all tenants."""


class Tenant:
    """A tenant that is configured now. It outlives changes of its configuration, so that its queue and gate do.

    Attributes:
        place: Where its jobs run from now on.
        usage: To be told who uses the sandbox.
        has_key: Somebody can be this tenant.
        serving: To be held while one of its pictures is read for a client.
    """

    def __init__(
        self, config: TenantConfig, place: Place, usage: Usage, metrics: Metrics, *, retry_after: float
    ) -> None:
        self.name = config.name
        self.place = place
        self.usage = usage
        self.has_key = False
        self.admission = Admission(config.limits)
        self.serving = asyncio.Semaphore(SERVED_AT_ONCE)
        self._metrics = metrics
        self._retry_after = retry_after
        metrics.jobs_running.labels(self.name).set_function(lambda: self.admission.running)
        metrics.jobs_queued.labels(self.name).set_function(lambda: self.admission.waiting)

    @property
    def status(self) -> PathStatus:
        """What the last canaries said."""
        return self.place.sandboxes.status

    def update(self, config: TenantConfig, place: Place, *, has_key: bool) -> None:
        """Take a new configuration."""
        self.admission.update(config.limits)
        sandbox = config.sandbox
        self.usage.follow(sandbox.lease, sandbox.idle_timeout_seconds, place.config.limits.deadline_seconds)
        self.has_key = has_key
        self.place = place

    def recheck(self) -> None:
        """Send canaries now."""
        self.place.sandboxes.recheck()

    def check_gate(self) -> None:
        """Refuse what would wait for the sandbox in vain.

        Raises:
            ApiError: `sandbox_starting` or `paths_inconsistent`, with Retry-After.
        """
        if status := self.place.sandboxes.hopeless():
            raise ApiError(
                ErrorCode.SANDBOX_STARTING if status.consistent is None else ErrorCode.PATHS_INCONSISTENT,
                status.message,
                {"reason": status.reason.value},
                retry_after=self._retry_after,
            )

    async def pass_gate(self, until: float) -> None:
        """Wait until the sandbox takes jobs, which it does where a canary came back.

        Args:
            until: `time.monotonic()` at which the request must have its answer.

        Raises:
            ApiError: As `check_gate`, and `deadline_exceeded`.
        """
        sandboxes = self.place.sandboxes
        await sandboxes.wait(until)
        self.check_gate()
        if not sandboxes.ready:
            raise ApiError(ErrorCode.DEADLINE_EXCEEDED, f"The request waited for the sandbox: {self.status.message}")

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
            "sandboxes": self.place.sandboxes.describe(),
            "jobsRunning": self.admission.running,
        }

    async def close(self) -> None:
        """Stop watching and try a last time to delete sessions that are left."""
        for gauge in (self._metrics.jobs_running, self._metrics.jobs_queued):
            gauge.remove(self.name)
        await self.usage.close()
        await self.place.sandboxes.close()
