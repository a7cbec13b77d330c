"""Leader election by a Lease: of several operators one works, and none of them works without knowing that it leads."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from s1vl_operator.cluster.kinds import LEASE, Manifest
from s1vl_operator.cluster.port import ApiError, Cluster, Unreachable

logger = logging.getLogger(__name__)


class LeadershipLost(Exception):  # noqa: N818 (an event more than an error)
    """The Lease could not be renewed in time, or somebody else has it."""


@dataclass(frozen=True)
class Timing:
    """Seconds. A Lease that was not renewed for `duration` is free; its holder gives up after `deadline` in vain.

    `deadline` is shorter than `duration`, so that the old leader has stopped before a new one starts. A leader that
    dies is followed after `duration` less `renew` at the soonest, and `duration` and two `retry` at the latest.

    Attributes:
        renew: between two renewals.
        retry: between two looks of a candidate, and until the next attempt at a renewal that failed.
    """

    duration: float = 10.0
    deadline: float = 7.0
    renew: float = 2.0
    retry: float = 1.0


RELEASE_SECONDS = 4.0
"""That a leader that leaves takes at most to say so; its Lease runs out anyway."""


class LeaderElector:
    """One candidate.

    Args:
        cluster: where the Lease is.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this candidate, unique among them.
        monotonic: a clock that never jumps, in seconds.
        timing: how long things take.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        monotonic: Callable[[], float],
        timing: Timing = Timing(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._timing = timing
        self._sleep = sleep
        self._seen: tuple[str, float] = ("", 0.0)
        """The Lease's version, and when it was first seen: other machines' clocks are not to be trusted."""
        self._until = -math.inf
        self._looked = -math.inf
        self._error = "the API server has not been asked yet"

    def leads(self) -> bool:
        """Whether it is certain that nobody else leads. By the clock, so it is right in a process that stood still."""
        return self._monotonic() < self._until

    def problem(self) -> str:
        """Why it is not known who leads; "" when it is."""
        if self._monotonic() - self._looked < self._timing.duration:
            return ""
        return f"the lease {self._namespace}/{self._name} cannot be read: {self._error}"

    async def acquire(self) -> None:
        """Return when this candidate leads."""
        told = ""
        while True:
            began = self._monotonic()
            holder, error = await self._look(self._timing.deadline)
            if holder == self._identity:
                self._until = began + self._timing.deadline
                logger.info("Leading as %s", self._identity)
                return
            state = f"Cannot get the lease: {error}" if error else f"Standing by, {holder} leads"
            if state != told:
                logger.log(logging.WARNING if error else logging.INFO, "%s", state)
                told = state
            await self._sleep(self._timing.retry)

    async def hold(self) -> None:
        """Renew the Lease for ever.

        Raises:
            LeadershipLost: it is no longer certain that nobody else leads; stop at once.
        """
        wait = self._timing.renew
        while True:
            await self._sleep(max(0.0, min(wait, self._until - self._monotonic())))
            began = self._monotonic()
            if not self.leads():
                raise LeadershipLost(f"the lease was not renewed for {self._timing.deadline:.0f} s: {self._error}")
            holder, error = await self._look(self._until - began)
            if error:
                logger.warning("Cannot renew the lease: %s", error)
                wait = self._timing.retry
                continue
            if holder != self._identity:
                self._until = -math.inf
                raise LeadershipLost(f"{holder} holds the lease now")
            self._until = began + self._timing.deadline
            wait = self._timing.renew

    async def release(self) -> None:
        """Let another candidate lead at once, if this one does."""
        if not self.leads():
            return
        self._until = -math.inf
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                lease = await self._cluster.read(LEASE, self._namespace, self._name)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                    await self._cluster.replace({**lease, "spec": spec})
        except (ApiError, Unreachable, TimeoutError) as error:
            logger.warning("Cannot release the lease: %s; it will run out", error or "no answer")

    async def _look(self, patience: float) -> tuple[str, str]:
        """Who holds the Lease, this candidate if it could have it; or why that is not known."""
        try:
            async with asyncio.timeout(patience):
                holder = await self._try()
        except (ApiError, Unreachable, TimeoutError) as error:
            self._error = str(error) or f"no answer within {patience:.0f} s"
            return "", self._error
        self._looked = self._monotonic()
        return holder, ""

    async def _try(self) -> str:
        """Take or renew the Lease if that is allowed; returns who holds it."""
        lease = await self._cluster.read(LEASE, self._namespace, self._name)
        if lease is None:
            return await self._write(self._cluster.create, _lease(self._namespace, self._name), 0)
        holder: str = lease.get("spec", {}).get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(lease):
            return holder
        return await self._write(self._cluster.replace, lease, int(holder != self._identity))

    async def _write(self, write: Callable[[Manifest], Awaitable[Manifest]], lease: Manifest, change: int) -> str:
        before: dict[str, Any] = lease.get("spec") or {}
        now = _now()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "acquireTime": now if change or not before else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + change,
        }
        # When somebody was faster that is a refusal: who it was, the next look tells.
        await write({**lease, "spec": spec})
        return self._identity

    def _expired(self, lease: Manifest) -> bool:
        version = str(lease["metadata"]["resourceVersion"])
        if version != self._seen[0]:
            self._seen = (version, self._monotonic())
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._timing.duration)
        return self._monotonic() - self._seen[1] >= duration


def _lease(namespace: str, name: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "s1vl"}}
    return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
