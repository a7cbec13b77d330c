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

from s1vl_sandbox.files import Root
from s1vl_sandbox.kernel import KernelFactory
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.outputs import OutputLimits
from s1vl_sandbox.pool import KernelPool
from s1vl_sandbox.processes import children, end_children
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
            processes=settings.kernel_processes,
        )
        self._output_limits = OutputLimits()
        self._owns_children = owns_children
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, self._output_limits.message_bytes)
        self._context.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE_MESSAGES)
        # A kernel binds its sockets some time after we start to connect to them.
        self._context.setsockopt(zmq.RECONNECT_IVL, 20)
        self.root = Path(tempfile.mkdtemp(prefix="s1vl-", dir=settings.state_dir))
        self.factory = KernelFactory(
            self.root / "k", self._limits, self._output_limits, self._context, self.root / "matplotlib"
        )
        self.factory.root.mkdir(mode=0o700)
        # Where files go that no session owns: the tenant's images, or a folder that lives as long as this server.
        self.home = Path(settings.workspace) if settings.workspace else self.root / "home"
        if not settings.workspace:
            self.home.mkdir()
            self.home.chmod(0o2770)
        self.pool = KernelPool(self.factory.start, settings.warm_kernels, self.metrics)
        self.sessions = Sessions(
            self.pool, settings.max_sessions, settings.session_timeout_seconds, self.metrics, clock
        )
        self.readiness = Readiness(self.pool, self.sessions)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the pool; at the end no process and no file of any kernel is left."""
        self.pool.open()
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
            self._context.destroy(linger=0)
            shutil.rmtree(self.root, ignore_errors=True)

    def file_roots(self) -> list[Root]:
        """The folders that the file API serves: home, and the private folders of the open sessions."""
        kernels = [session.kernel for session in self.sessions.all()]
        folders = [kernel.work_dir.relative_to(self.root) for kernel in kernels if kernel is not None]
        return [Root(self.home), *(Root(self.root, PurePosixPath(folder)) for folder in folders)]

    def describe_limits(self) -> dict[str, Any]:
        """The limits that hold; None where there is none."""
        return {"kernel": self._limits.describe(), "output": asdict(self._output_limits)}

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_INTERVAL_SECONDS)
            for name in await self.sessions.expire():
                _log.info("session expired", extra={"session_id": name})

    async def _end_strays(self) -> None:
        """End what outlived its kernel: what two looks in a row found, for noting a new kernel's id takes a moment."""
        suspects: set[int] = set()
        while True:
            await asyncio.sleep(_STRAYS_INTERVAL_SECONDS)
            strangers = children() - self.factory.pids
            self.metrics.strays.inc(end_children(strangers & suspects))
            suspects = strangers
