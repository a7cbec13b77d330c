"""Keeps the volume from filling up with what jobs made: looks after every tenant's folder now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from s1vl_orchestrator.config import Config
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.job_folders import Found, keep, keep_copies
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

ROUND_SECONDS = 600.0
PAUSE_SECONDS = 0.02
_STEP = 500
"""Entries that are looked at or removed in one go, a few milliseconds' work on a local disk."""
_END = object()
_MOST_STEPS = 10_000
"""Of one tenant in one round; the next round goes on, as what was removed is gone."""


@dataclass
class _Look:
    """One look at one folder, under way."""

    entries: Generator[None, None, None]
    found: Found = field(default_factory=Found)
    steps: int = 0

    def step(self) -> bool:
        """Go on for a while; whether it is over."""
        self.steps += 1
        return any(next(self.entries, _END) is _END for _ in range(_STEP))


class Retention:
    """Removes jobs' folders by age and by the tenants' bytes, as the configuration says that is in use.

    The work is done in a thread of its own, in small steps, the tenants in turn: neither the event loop nor a job nor
    another tenant waits for a folder with a million files.
    """

    def __init__(
        self, metrics: Metrics, *, round_seconds: float = ROUND_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self._metrics = metrics
        self._round_seconds = round_seconds
        self._clock = clock
        self._workers = Workers(1)
        self._config: Config | None = None
        self._wake = asyncio.Event()

    def follow(self, config: Config) -> None:
        """Keep to this configuration from now on; one that says something else here is acted upon at once."""
        old, self._config = self._config, config
        if old is None or _concerns(old) != _concerns(config):
            self._wake.set()
        for tenant in {item.name for item in old.tenants} - {item.name for item in config.tenants} if old else ():
            with contextlib.suppress(KeyError):
                self._metrics.retention_kept_bytes.remove(tenant)

    async def run(self) -> None:
        """Look after the folders until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.look()
            except Exception:  # One bad round must not end all following ones.
                log.exception("looking after the jobs' folders failed")
            try:
                # Instances that were started together need not all come at the same time.
                async with asyncio.timeout(self._round_seconds * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """One round: every tenant once, and the engine's copies. Ends early when the configuration changes."""
        config = self._config
        if config is None:
            return
        concerns = _concerns(config)
        looks = self._begin(config)
        try:
            while looks and self._config is not None and _concerns(self._config) == concerns:
                for name, look in list(looks.items()):
                    if await self._workers.run(self._step, name, look):
                        del looks[name]
                        self._tell(name, look)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            # In the thread: a step of a cancelled round may just be ending there.
            await asyncio.shield(self._workers.run(self._close, list(looks.values())))

    def close(self) -> None:
        """Let the thread end."""
        self._workers.close()

    def _begin(self, config: Config) -> dict[str, _Look]:
        now, rules = self._clock(), config.images.retention
        found = Found()
        looks = {"": _Look(keep_copies(Path(config.images.root), now, found), found)}
        if rules.max_age_seconds or rules.max_bytes_per_tenant:
            for tenant in config.tenants:
                found = Found()
                looks[tenant.name] = _Look(keep(config.paths(tenant).folder, rules, now, found), found)
        return looks

    @staticmethod
    def _close(looks: list[_Look]) -> None:
        # Not left to the collector: the traceback of a cancelled round holds what it looked at, descriptors and all.
        for look in looks:
            look.entries.close()

    @staticmethod
    def _step(name: str, look: _Look) -> bool:
        try:
            over = look.step()
        except OSError as error:
            log.warning("cannot look after the jobs' folders of %s: %s", name or "the engine", error)
            look.found.failures += 1
            return True
        if not over and look.steps == _MOST_STEPS:
            log.warning("the jobs' folders of %s have too many entries for one round", name or "the engine")
            return True
        return over

    def _tell(self, name: str, look: _Look) -> None:
        found, metrics = look.found, self._metrics
        if name:
            metrics.retention_removed_jobs.labels(name).inc(found.removed)
            metrics.retention_removed_bytes.labels(name).inc(found.removed_bytes)
            metrics.retention_kept_bytes.labels(name).set(found.kept_bytes)
            metrics.retention_failures.labels(name).inc(found.failures)
        if found.removed or found.failures:
            log.info(
                "removed %d folders (%d bytes) of %s, kept %d (%d bytes); %d could not be looked after",
                found.removed,
                found.removed_bytes,
                f"jobs of {name}" if name else "the engine's copies",
                found.kept,
                found.kept_bytes,
                found.failures,
            )


def _concerns(config: Config) -> object:
    return config.images, [(tenant.name, tenant.sub_path) for tenant in config.tenants]
