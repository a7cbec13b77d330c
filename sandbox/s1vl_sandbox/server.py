"""Everything one server holds, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import zmq
import zmq.asyncio

from s1vl_sandbox.containment import Protection
from s1vl_sandbox.files import Root
from s1vl_sandbox.kernel import KernelFactory
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.link import HostLink
from s1vl_sandbox.outputs import OutputLimits
from s1vl_sandbox.pool import KernelPool
from s1vl_sandbox.processes import children, kill_strays
from s1vl_sandbox.readiness import Readiness
from s1vl_sandbox.sessions import Sessions
from s1vl_sandbox.settings import Settings
from s1vl_sandbox.telemetry import Metrics

_log = logging.getLogger(__name__)

_EXPIRE_INTERVAL_SECONDS = 5.0
_STRAYS_INTERVAL_SECONDS = 1.0
# Few, because each may be as large as the limit for one message: this bounds what a flooding kernel costs us.
_RECEIVE_QUEUE_MESSAGES = 8


class Server:
    """The parts of one server. Use :meth:`running` around its life.

    Args:
        settings: The administrator's wishes.
        clock: Seconds since the epoch, for the expiry of sessions.
        owns_children: Every child process of this process is ours, so those that nobody knows may be ended.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time, *, owns_children: bool = False
    ) -> None:
        self.settings = settings
        self.boot_id = uuid.uuid4().hex
        self.metrics = Metrics()
        self._limits = KernelLimits(
            memory_bytes=settings.kernel_memory_bytes,
            file_bytes=settings.kernel_file_bytes,
            open_files=settings.kernel_open_files,
            cpu_seconds=settings.kernel_cpu_seconds,
        )
        self._output_limits = OutputLimits()
        self._owns_children = owns_children
        self._separate = settings.kernels == "separate"
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, self._output_limits.message_bytes)
        self._context.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE_MESSAGES)
        # A folder of our own, but the one that two containers share.
        self.root = (
            settings.state_dir if self._separate else Path(tempfile.mkdtemp(prefix="s1vl-", dir=settings.state_dir))
        )
        # Where files go that no session owns: the tenant's images, or a folder that lives as long as this server.
        self.home = Path(settings.workspace) if settings.workspace else self.root / "home"
        if not settings.workspace:
            self.home.mkdir(exist_ok=True)
            self.home.chmod(0o2770)
        self.link = HostLink(
            self.root, self._limits, settings.warm_kernels, spawn=not self._separate, on_change=self._host_changed
        )
        self.factory = KernelFactory(self.link, self._limits, self._output_limits, self._context)
        self.pool = KernelPool(self.factory.start, self.metrics)
        self.sessions = Sessions(
            self.pool, settings.max_sessions, settings.session_timeout_seconds, self.metrics, self.home, clock=clock
        )
        self.readiness = Readiness(self.pool, self.sessions, lambda: "draining" if self.draining else self.link.problem)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the pool; at the end no process and no file of any kernel is left."""
        self.link.open()
        tasks = [asyncio.create_task(self._expire(), name="expiry")]
        if self._owns_children:
            tasks.append(asyncio.create_task(self._end_strays(), name="strays"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.pool.close()
            await self.link.close()
            self._context.destroy(linger=0)
            if not self._separate:
                shutil.rmtree(self.root, ignore_errors=True)

    def drain(self) -> None:
        """Be unready and open no session any more; those that are open go on until they are closed or expire."""
        self.sessions.draining = True

    @property
    def draining(self) -> bool:
        """Whether :meth:`drain` was called."""
        return self.sessions.draining

    @property
    def drained(self) -> bool:
        """Whether it was called and no session is open."""
        return self.draining and not len(self.sessions)

    def file_roots(self) -> list[Root]:
        """The folders that the file API serves: home, and the private folders of the open sessions."""
        kernels = [session.kernel for session in self.sessions.all()]
        folders = [kernel.work_dir.relative_to(self.root) for kernel in kernels if kernel is not None]
        return [Root(self.home), *(Root(self.root, PurePosixPath(folder)) for folder in folders)]

    def describe_limits(self) -> dict[str, Any]:
        """The limits that hold; None where there is none."""
        return {"kernel": self._limits.describe(), "output": asdict(self._output_limits)}

    def isolation(self) -> dict[str, Any] | None:
        """Which protections of the kernels hold on this node; None until the kernel host has told."""
        if not self.link.hello:
            return None
        held = {*self.link.hello["held"], *([Protection.SEPARATE_SERVER.value] if self._separate else [])}
        return {
            "landlock_abi": self.link.hello["landlock_abi"],
            "held": sorted(held),
            "missing": sorted(set(map(str, Protection)) - held),
        }

    def _host_changed(self) -> None:
        self.pool.resize(self.link.warm)
        isolation = self.isolation()
        for protection in Protection:
            self.metrics.protection.labels(protection.value).set(
                isolation is not None and protection.value in isolation["held"]
            )
        if self.link.problem is not None:
            self.readiness.forget()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_INTERVAL_SECONDS)
            for name in await self.sessions.expire():
                _log.info("session expired", extra={"session_id": name})

    async def _end_strays(self) -> None:
        """End what outlived the host, which ends what outlives its kernels."""
        while True:
            await asyncio.sleep(_STRAYS_INTERVAL_SECONDS)
            if not self.link.starting and children() - self.link.pids:
                self.metrics.strays.inc(await asyncio.to_thread(kill_strays, self.link.pids))
