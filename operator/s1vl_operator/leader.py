"""Leader election by a Lease: of several operators one works, and none of them works without knowing that it leads."""

from __future__ import annotations

import asyncio
import logging
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

    `deadline` is shorter than `duration`, so that the old leader has stopped before a new one starts.
    """

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


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
        self._renewed = 0.0

    async def acquire(self) -> None:
        """Return when this candidate leads."""
        told = ""
        while True:
            began = self._monotonic()
            try:
                holder = await self._try()
            except (ApiError, Unreachable) as error:
                logger.warning("Cannot get the lease %s/%s: %s", self._namespace, self._name, error)
            else:
                if holder == self._identity:
                    self._renewed = began
                    logger.info("Leading as %s", self._identity)
                    return
                if holder != told:
                    logger.info("Standing by, %s leads", holder)
                    told = holder
            await self._sleep(self._timing.retry)

    async def hold(self) -> None:
        """Renew the Lease for ever.

        Raises:
            LeadershipLost: it is no longer certain that nobody else leads; stop at once.
        """
        while True:
            await self._sleep(self._timing.retry)
            began = self._monotonic()
            left = self._renewed + self._timing.deadline - began
            if left <= 0:
                raise LeadershipLost(f"the lease was not renewed for {self._timing.deadline:.0f} s")
            try:
                async with asyncio.timeout(left):
                    holder = await self._try()
            except (ApiError, Unreachable, TimeoutError) as error:
                logger.warning("Cannot renew the lease %s/%s: %s", self._namespace, self._name, error or "no answer")
                continue
            if holder != self._identity:
                raise LeadershipLost(f"{holder or 'nobody'} holds the lease now")
            self._renewed = began

    async def release(self) -> None:
        """Let another candidate lead at once, if this one does."""
        try:
            lease = await self._cluster.read(LEASE, self._namespace, self._name)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._cluster.replace({**lease, "spec": spec})
        except (ApiError, Unreachable) as error:
            logger.warning("Cannot release the lease: %s; it will run out", error)

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
        try:
            await write({**lease, "spec": spec})
        except ApiError as error:
            if error.status != 409:
                raise
            # Somebody was faster. Who, the next look tells.
            return "another candidate"
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
