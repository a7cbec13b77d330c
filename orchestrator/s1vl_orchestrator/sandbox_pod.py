"""One pod of a tenant's sandbox: watched by canaries of its own, and home of the sessions that jobs have there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from s1vl_orchestrator.canary import NOT_CHECKED, PathStatus, check_paths, unreachable
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.sandbox import (
    CONNECT_SECONDS,
    SandboxBusyError,
    SandboxClient,
    SandboxDrainingError,
    SandboxUnavailableError,
    SandboxUnreachableError,
)
from s1vl_orchestrator.sandbox_keys import SandboxKeys
from s1vl_orchestrator.sandbox_sessions import Sweeper
from s1vl_orchestrator.telemetry import Metrics, tenant_name

log = logging.getLogger(__name__)

HASTY_SECONDS = 1.0
"""For connecting while requests wait. Linux itself asks again after a second only, then after two more."""


@dataclass(frozen=True)
class WatchTimes:
    """How often a sandbox is looked at, in seconds.

    Attributes:
        urgent: Between two looks while requests wait for it.
        outage: A sandbox that is away for longer is waited for no more.
    """

    canary: float = 60.0
    probe: float = 5.0
    retry_first: float = 1.0
    retry_most: float = 5.0
    orphans: float = 60.0
    urgent: float = 0.25
    outage: float = 120.0


@dataclass
class Watching:
    """What the watches over all sandboxes share.

    Attributes:
        http: Connections to sandboxes.
        workers: Threads for canaries.
    """

    http: aiohttp.ClientSession
    workers: Workers
    metrics: Metrics
    times: WatchTimes


@dataclass(frozen=True)
class Target:
    """What holds for all pods of a tenant's sandbox."""

    paths: TenantPaths
    keys: SandboxKeys
    takes_grants: bool


@dataclass(frozen=True)
class Owner:
    """What a pod's watch needs of the tenant.

    Attributes:
        changed: To be called when the pod's status is another one.
        over: To be called when the pod is not listed and nothing of ours is left there.
        urgent: Whether requests wait.
    """

    tenant: str
    changed: Callable[[], None]
    over: Callable[[SandboxPod], None]
    urgent: Callable[[], bool]


class SandboxPod:
    """One pod, or what stands behind a Service where the pods are not known.

    Attributes:
        name: The pod's name, "" where it is not known.
        address: Host and port.
        client: Speaks to it.
        sweeper: Deletes what is left there.
        listed: New sessions may be opened there.
        sessions: Sessions of jobs of this instance.
        status: What the last canary said.
        reachable: It takes connections, as far as is known.
    """

    def __init__(self, name: str, url: str, target: Target, owner: Owner, watching: Watching) -> None:
        self.name = name
        self.url = url
        self.address = urlsplit(url).netloc
        self.sweeper = Sweeper()
        self.listed = True
        self.sessions = 0
        self.status: PathStatus = NOT_CHECKED
        self.reachable = True
        self._target = target
        self._owner = owner
        self._watching = watching
        self.client = self._client()
        self._wake = asyncio.Event()
        self._boot_id: str | None = None
        self._draining: SandboxDrainingError | None = None
        self._orphans_swept = 0.0
        self._watch = asyncio.create_task(self._keep_watch(), name=f"watch-{owner.tenant}-{self.address}")

    @property
    def open(self) -> bool:
        """It takes new sessions: its last canary came back."""
        return self.listed and self.status.consistent is True

    def follow(self, target: Target) -> None:
        """Take a new configuration; other paths have to be proven again."""
        if target == self._target:
            return
        moved = target.paths != self._target.paths
        self._target = target
        self.client = self._client()
        if moved:
            self._set(NOT_CHECKED)
        self.recheck()

    def list_as(self, name: str) -> None:
        """It takes sessions, under this name ("" where that is not known)."""
        before, self.name = self.name, name or self.name
        if before not in ("", self.name):
            # The address has been given to another pod.
            self._draining = None
            self._set(NOT_CHECKED)
        if not self.listed or self.status is NOT_CHECKED:
            self.listed = True
            self.recheck()

    def unlist(self) -> None:
        """It takes no new sessions; those that are there may end."""
        if self.listed:
            self.listed = False
            self.recheck()

    def recheck(self) -> None:
        """Look at it now."""
        self._wake.set()

    def failed(self, error: SandboxUnavailableError) -> None:
        """Note that a job could not use it, and look at it now."""
        if isinstance(error, SandboxDrainingError):
            self._drains(error)
        elif isinstance(error, SandboxUnreachableError):
            self.reachable = False
            self._set(unreachable(self._owner.tenant, self.client, error))
        self.recheck()

    def describe(self) -> dict[str, Any]:
        """Its entry in `GET /internal/tenants`."""
        return {
            "address": self.address,
            "sessions": self.sessions,
            "listed": self.listed,
            "consistent": self.status.consistent,
            "reason": self.status.reason.value,
            "message": "" if self.status.consistent else self.status.message,
        }

    async def close(self) -> None:
        """Stop watching and try a last time to delete sessions that are left."""
        self._watch.cancel()
        await asyncio.wait([self._watch])
        try:
            await self.sweeper.sweep(self.client)
        except SandboxUnavailableError as error:
            log.warning("sessions at %s are left to expire: %s", self.address, error)

    def _client(self) -> SandboxClient:
        target, watching = self._target, self._watching
        return SandboxClient(
            self.url, target.keys, takes_grants=target.takes_grants, http=watching.http, metrics=watching.metrics
        )

    async def _keep_watch(self) -> None:
        tenant_name.set(self._owner.tenant)
        times = self._watching.times
        pause = times.retry_first
        while True:
            self._wake.clear()
            try:
                if not self.listed:
                    if await self._is_over():
                        self._owner.over(self)
                        return
                else:
                    await self._check()
                    if self.status.consistent:
                        pause = times.retry_first
                        await self._until_doubtful()
                        continue
            except Exception:  # The watch must outlive any defect: without it the gate would stay as it is for ever.
                log.exception("the watch over the sandbox failed")
            await self._sleep(pause)
            pause = min(times.retry_most, pause * 2)

    async def _check(self) -> None:
        target, client = self._target, self.client
        try:
            # Before the canary: a pod that is replaced after it must be seen as another one.
            boot_id: str | None = await client.boot_id(HASTY_SECONDS if self._owner.urgent() else CONNECT_SECONDS)
        except SandboxUnreachableError as error:
            self.reachable = False
            self._set(unreachable(self._owner.tenant, client, error))
            return
        except SandboxUnavailableError:
            boot_id = None
        self.reachable = True
        if self._draining and boot_id in (None, self._boot_id):
            return
        self._boot_id, self._draining = boot_id, None
        try:
            status = await check_paths(self._owner.tenant, target.paths, client, self.sweeper, self._watching.workers)
        except SandboxBusyError as error:
            log.info("no session for the canary: %s", error)
            return
        except SandboxDrainingError as error:
            self._drains(error)
            return
        if target.paths != self._target.paths or self._draining:
            return
        self._watching.metrics.canaries.labels(self._owner.tenant, status.reason.value).inc()
        self._set(status)

    def _drains(self, error: SandboxDrainingError) -> None:
        if not self._draining:
            self._draining = error
            self._set(unreachable(self._owner.tenant, self.client, error))

    def _set(self, status: PathStatus) -> None:
        before, self.status = self.status, status
        if (status.reason, status.consistent) != (before.reason, before.consistent):
            log.log(logging.INFO if status.consistent else logging.WARNING, "%s: %s", self.address, status.message)
        self._owner.changed()

    async def _until_doubtful(self) -> None:
        """Wait until it is time for the next canary, or the sandbox is another one or gone."""
        times = self._watching.times
        due = time.monotonic() + times.canary
        while time.monotonic() < due:
            if await self._sleep(min(times.probe, max(0.0, due - time.monotonic()))):
                return
            try:
                if await self.client.boot_id() != self._boot_id:
                    log.info("the sandbox is another process now")
                    return
                orphans = time.monotonic() - self._orphans_swept >= times.orphans
                await self.sweeper.sweep(self.client, orphans=orphans)
                if orphans:
                    self._orphans_swept = time.monotonic()
            except SandboxUnavailableError as error:
                log.warning("the sandbox does not answer: %s", error)
                return

    async def _is_over(self) -> bool:
        """Whether the pod, which is not listed, has nothing of ours (any more)."""
        try:
            left = await self.sweeper.sweep(self.client)
        except SandboxUnreachableError:
            left = 0  # It is gone, and its sessions with it.
        except SandboxUnavailableError as error:
            log.info("sessions are left at %s: %s", self.address, error)
            left = 1
        return not self.listed and not left and not self.sessions

    async def _sleep(self, seconds: float) -> bool:
        """Sleep, shortly while requests wait; returns True at once when a look is asked for."""
        urgent = self._owner.urgent() and not self.status.consistent
        try:
            async with asyncio.timeout(min(seconds, self._watching.times.urgent) if urgent else seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True
