"""A tenant's sandbox: its pods, which of them takes a job's session, and the wait for one that does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from s1vl_orchestrator.addresses import Resolve, at_address
from s1vl_orchestrator.canary import PathStatus, combined
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.pod_choice import Draw, Standing, choose
from s1vl_orchestrator.pods import ListedPod
from s1vl_orchestrator.sandbox import SandboxUnavailableError
from s1vl_orchestrator.sandbox_keys import SandboxKeys
from s1vl_orchestrator.sandbox_pod import Owner, SandboxPod, Target, Watching
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

Listing = Sequence[ListedPod] | None
"""What `pods.yaml` says of the tenant; None where there is no such file."""


class SandboxPods:
    """All pods of one tenant's sandbox. A job's session stays where it was opened, whatever is listed meanwhile.

    Args:
        tenant: Its name.
        keys: The sandbox's API keys.
        watching: What all tenants share.
        resolve: Resolves the name behind which the pods are.
        look: Has the list of pods read again now.
        wake_until: Given since when there is no pod, until when one is waited for because the sandbox may have slept.
        draw: Picks among equals.

    Attributes:
        waiting: Requests and jobs that wait for a pod.
    """

    def __init__(
        self,
        tenant: str,
        keys: SandboxKeys,
        watching: Watching,
        resolve: Resolve,
        *,
        look: Callable[[], None],
        wake_until: Callable[[float], float],
        draw: Draw = random.choice,
    ) -> None:
        self.waiting = 0
        self._keys = keys
        self._tenant = tenant
        self._watching = watching
        self._resolve = resolve
        self._look = look
        self._wake_until = wake_until
        self._draw = draw
        self._owner = Owner(tenant, self._change, self._forget, lambda: self.waiting > 0)
        self._url = ""
        self._target: Target | None = None
        self._listing: Listing = None
        self._found: list[str] = []
        self._pods: dict[str, SandboxPod] = {}
        self._closed = False
        self._changed = asyncio.Event()
        self._away_since: float | None = time.monotonic()
        self._seek = asyncio.Event()
        self._seeking: asyncio.Task[None] | None = None
        metrics = watching.metrics
        metrics.requests_held.labels(tenant).set_function(lambda: self.waiting)
        metrics.sandbox_pods.labels(tenant).set_function(lambda: sum(pod.open for pod in self._pods.values()))
        metrics.paths_consistent.labels(tenant).set(0)

    @property
    def metrics(self) -> Metrics:
        """The process' metrics."""
        return self._watching.metrics

    @property
    def ready(self) -> bool:
        """A pod takes sessions."""
        return any(pod.open for pod in self._pods.values())

    @property
    def status(self) -> PathStatus:
        """What the last canaries of the listed pods said."""
        return combined(self._tenant, [pod.status for pod in self._pods.values() if pod.listed])

    def follow(self, url: str, paths: TenantPaths, key: str | None, listing: Listing, *, takes_grants: bool) -> None:
        """Take a new configuration.

        Args:
            url: Is asked where no listed pod can be.
            paths: The views of the tenant's folder.
            key: The API key that holds now, None where there is none (any more).
            listing: The pods there are.
            takes_grants: As for `SandboxClient`.
        """
        if url != self._url:
            self._found = []
        self._url, self._target = url, Target(paths, self._keys, takes_grants)
        news = self._keys.learn(key)
        for pod in self._pods.values():
            pod.follow(self._target)
            if news:
                pod.recheck()
        self.relist(listing)

    def relist(self, listing: Listing) -> None:
        """Let these pods take new sessions, and no others."""
        self._listing = listing
        if listing is None:
            self._found = []
        elif self._seeking is None:
            self._seeking = asyncio.create_task(self._keep_seeking(), name=f"seek-{self._tenant}")
        self._arrange()
        self._seek.set()

    def recheck(self) -> None:
        """Send canaries now."""
        for pod in self._pods.values():
            pod.recheck()

    def failed(self, pod: SandboxPod, error: SandboxUnavailableError) -> None:
        """Note that a job could not use a pod."""
        pod.failed(error)
        self._seek.set()

    def hopeless(self) -> PathStatus | None:
        """Why there is no pod and none is to be waited for, or None."""
        if self.ready:
            return None
        status = self.status
        return status if status.consistent is False or time.monotonic() >= self._give_up() else None

    async def wait(self, until: float, *, begun: bool = False) -> None:
        """Wait until a pod takes sessions, until none is to be waited for, or until `time.monotonic()` is `until`.

        Args:
            until: As above.
            begun: A job waits. Pods that see other files end its wait only after a while: much is lost with it.
        """

        def in_vain() -> bool:
            return time.monotonic() >= self._give_up() if begun else self.hopeless() is not None

        if self.ready or in_vain():
            return
        self.waiting += 1
        try:
            if self.waiting == 1:
                self._hurry()
            while not self.ready and not in_vain() and (now := time.monotonic()) < until:
                changed = self._changed
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(until, self._give_up()) - now):
                        await changed.wait()
        finally:
            self.waiting -= 1

    async def take(self, failures: Mapping[str, int]) -> SandboxPod:
        """The pod for a session, given how often which address failed to open it. Its place is to be given back.

        Raises:
            SandboxUnavailableError: If there is none, and none is to be waited for.
        """
        await self.wait(math.inf, begun=True)
        pods = {pod.address: pod for pod in self._pods.values() if pod.open}
        if not pods:
            raise SandboxUnavailableError(self.status.message)
        standings = [Standing(address, pod.sessions, failures.get(address, 0)) for address, pod in pods.items()]
        pod = pods[choose(standings, self._draw).address]
        pod.sessions += 1
        return pod

    def leave(self, pod: SandboxPod) -> None:
        """Give a place back."""
        pod.sessions -= 1
        if not pod.listed:
            pod.recheck()

    def describe(self) -> list[dict[str, Any]]:
        """The pods' entries in `GET /internal/tenants`."""
        return [pod.describe() for pod in self._pods.values()]

    async def close(self) -> None:
        """Stop watching and try a last time to delete sessions that are left; nobody waits any more."""
        self._closed = True
        self._change()
        if self._seeking:
            self._seeking.cancel()
            await asyncio.wait([self._seeking])
        await asyncio.gather(*(pod.close() for pod in self._pods.values()))
        for gauge in (self.metrics.requests_held, self.metrics.sandbox_pods, self.metrics.paths_consistent):
            gauge.remove(self._tenant)

    def _give_up(self) -> float:
        if self._closed:
            return -math.inf
        began = time.monotonic() if self._away_since is None else self._away_since
        return max(began + self._watching.times.outage, self._wake_until(began))

    def _hurry(self) -> None:
        for pod in self._pods.values():
            if not pod.open:
                pod.recheck()
        self._seek.set()
        self._look()

    def _change(self) -> None:
        if self.ready:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = time.monotonic()
        if not self._closed:
            self.metrics.paths_consistent.labels(self._tenant).set(1 if self.status.consistent else 0)
        self._changed.set()
        self._changed = asyncio.Event()

    def _arrange(self) -> None:
        assert self._target  # noqa: S101 - followed before anything is listed
        if self._listing is None:
            wanted = {self._url: ""}
        else:
            wanted = {at_address(self._url, item.address): item.name for item in self._listing}
            wanted |= {url: "" for url in self._found if url not in wanted}
        for url, pod in self._pods.items():
            if url not in wanted:
                pod.unlist()
        for url, name in wanted.items():
            if url in self._pods:
                self._pods[url].list_as(name)
            else:
                self._pods[url] = SandboxPod(name, url, self._target, self._owner, self._watching)
        self._change()

    def _forget(self, pod: SandboxPod) -> None:
        del self._pods[pod.url]

    async def _keep_seeking(self) -> None:
        """Look behind the Service's name while no listed pod can be connected to: who lists them may be away.

        Where none is listed the sandbox sleeps, most likely, and nobody is asked until somebody waits.
        """
        times = self._watching.times
        while True:
            self._seek.clear()
            try:
                await self._find()
            except Exception:  # One bad round must not end all following ones.
                log.exception("looking for the sandbox's pods failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(times.retry_first if self.waiting else times.retry_most):
                    await self._seek.wait()

    async def _find(self) -> None:
        url, listing = self._url, self._listing
        listed = {at_address(url, item.address) for item in listing or ()}
        found: list[str] = []
        lost = not any(pod.reachable for at, pod in self._pods.items() if at in listed)
        if lost and (listing or (listing is not None and (self.waiting or self._found))):
            try:
                found = sorted({at_address(url, at) for at in await self._resolve(urlsplit(url).hostname or "")})
            except OSError as error:
                log.warning("cannot resolve %s: %s", url, error)
                return
        if (url, listing) == (self._url, self._listing) and found != self._found:
            self._found = found
            self._arrange()
