"""Sessions: a name a client chose, and the one kernel behind it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from s1vl_sandbox.cells import CellResult, CellStatus, KernelStartError, KillCause, WorkingDirectoryError
from s1vl_sandbox.grants import SessionGrants, session_grants, working_directory
from s1vl_sandbox.kernel import Kernel
from s1vl_sandbox.pool import KernelPool
from s1vl_sandbox.telemetry import Metrics

__all__ = [
    "DrainingError",
    "Session",
    "SessionClosedError",
    "SessionLimitError",
    "Sessions",
    "WorkingDirectoryError",
]

_CHDIR_TIMEOUT_SECONDS = 10.0


class DrainingError(RuntimeError):
    """The server is about to end: it opens no session any more."""


class SessionLimitError(RuntimeError):
    """As many sessions are open as may be."""


class SessionClosedError(RuntimeError):
    """The session was deleted while the cell waited for its turn."""


@dataclass
class Session:
    """One session.

    Attributes:
        session_id: The client's name for it.
        created: Clock reading at creation, seconds.
        last_used: Clock reading when a cell last began or ended, seconds.
        grants: What its kernels may touch, fixed when it was opened, and where the next one starts.
        kernel: None until the first cell and after a kernel was lost.
        running: Cells running or waiting for their turn.
    """

    session_id: str
    created: float
    last_used: float
    grants: SessionGrants = field(default_factory=SessionGrants)
    kernel: Kernel | None = None
    running: int = 0
    closed: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """All open sessions of this server.

    Args:
        pool: Where kernels come from.
        limit: How many sessions may be open at once.
        timeout_seconds: A session unused for so long is closed by :meth:`expire`.
        metrics: Where sessions and cells are counted.
        workspace: Folder that sessions may read, and below which they may ask to write.
        clock: Seconds since the epoch; tests bring their own.
    """

    def __init__(
        self,
        pool: KernelPool,
        limit: int,
        timeout_seconds: float,
        metrics: Metrics,
        workspace: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.draining = False
        """Open no session any more; those that are open go on."""
        self.timeout_seconds = timeout_seconds
        self._pool = pool
        self._metrics = metrics
        self._workspace = workspace
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._last_success = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    @property
    def last_success(self) -> float:
        """Clock reading when a cell last ended well; -inf before the first."""
        return self._last_success

    def now(self) -> float:
        """The clock of this object."""
        return self._clock()

    def get(self, session_id: str) -> Session | None:
        """The open session of that name, if there is one."""
        return self._open.get(session_id)

    def all(self) -> list[Session]:
        """All open sessions, oldest first."""
        return list(self._open.values())

    def forget_success(self) -> None:
        """Let no earlier cell speak for the kernels of today."""
        self._last_success = float("-inf")

    async def create(self, session_id: str | None, cwd: str | None, readable: Sequence[str] = ()) -> Session:
        """Open a session with its kernel, or return the open one of that name, whose grants stay as they are.

        Args:
            session_id: Name of the session; None opens one with a random name.
            cwd: Directory to start in. Below the workspace it may be written, and is made if only its parent exists.
            readable: Absolute paths below the workspace; if any are given, nothing else of it can be read.

        Raises:
            DrainingError: It is not open, and none is opened any more.
            SessionLimitError: The limit is reached.
            WorkingDirectoryError: ``cwd`` or one of ``readable`` cannot be used.
            KernelStartError: No kernel could be started.
            SessionClosedError: It was deleted meanwhile.
        """
        session = self._find_or_open(session_id, cwd, readable)
        try:
            async with session.lock:
                if session.kernel is None:
                    await self._give_kernel(session)
        except BaseException:
            await self.delete(session.session_id)
            raise
        return session

    async def execute(
        self,
        code: str,
        limit_seconds: float,
        session_id: str | None,
        cwd: str | None,
        readable: Sequence[str] = (),
    ) -> tuple[str, CellResult]:
        """Run a cell, opening the session when it is not open. Cells of one session run one after the other.

        Args:
            code: Python source.
            limit_seconds: Seconds for the cell itself, not counting its wait for a kernel or for earlier cells.
            session_id: Name of the session; None opens one with a random name.
            cwd: Directory to change to before the cell. Of a session that is open, it does not change the grants.
            readable: As in :meth:`create`, when the session is opened.

        Returns:
            The session's name and the result.

        Raises:
            DrainingError: A session had to be opened and none is any more.
            SessionLimitError: A session had to be opened and the limit is reached.
            WorkingDirectoryError: ``cwd`` or one of ``readable`` cannot be used.
            KernelStartError: No kernel could be started.
            SessionClosedError: The session was deleted meanwhile.
        """
        session = self._find_or_open(session_id, cwd, readable)
        session.running += 1
        try:
            async with session.lock:
                result = await self._run(session, code, limit_seconds, cwd)
        except (KernelStartError, WorkingDirectoryError):
            if session.running == 1 and session.kernel is None:
                # It has never held anything, and who let us choose the name could not even delete it.
                await self.delete(session.session_id)
            raise
        finally:
            session.running -= 1
            session.last_used = self._clock()
        self._count(result)
        return session.session_id, result

    async def delete(self, session_id: str) -> bool:
        """Close a session, running cells included; False if there is none of that name."""
        session = self._open.pop(session_id, None)
        if session is None:
            return False
        self._metrics.sessions.set(len(self._open))
        session.closed = True
        if session.kernel is not None:
            await self._pool.release(session.kernel, KillCause.CLOSED)
        return True

    async def delete_all(self) -> int:
        """Close all sessions and return how many there were."""
        return sum(await asyncio.gather(*(self.delete(name) for name in list(self._open))))

    async def expire(self) -> list[str]:
        """Close the sessions that have been unused for too long and return their names."""
        oldest = self._clock() - self.timeout_seconds
        names = [s.session_id for s in self._open.values() if not s.running and s.last_used <= oldest]
        await asyncio.gather(*(self.delete(name) for name in names))
        return names

    def _find_or_open(self, session_id: str | None, cwd: str | None, readable: Sequence[str]) -> Session:
        session = self._open.get(session_id) if session_id else None
        if session is not None:
            working_directory(cwd)
            return session
        if self.draining:
            raise DrainingError("draining")
        if len(self._open) >= self.limit:
            raise SessionLimitError(f"session limit reached: {len(self._open)} of {self.limit} sessions are open")
        grants = session_grants(cwd, readable, str(self._workspace))
        now = self._clock()
        session = Session(session_id or str(uuid.uuid4()), created=now, last_used=now, grants=grants)
        self._open[session.session_id] = session
        self._metrics.sessions.set(len(self._open))
        return session

    async def _give_kernel(self, session: Session) -> Kernel:
        kernel = await self._pool.acquire(session.grants)
        if session.closed:
            await self._pool.release(kernel, KillCause.CLOSED)
            raise SessionClosedError("the session was closed before its kernel was ready")
        session.kernel = kernel
        return kernel

    async def _run(self, session: Session, code: str, limit_seconds: float, cwd: str | None) -> CellResult:
        if session.closed:
            raise SessionClosedError("the session was closed while the cell waited for earlier ones")
        session.last_used = self._clock()
        kernel = session.kernel
        if kernel is not None and not kernel.alive:
            # It died between two cells: the caller must learn that before code runs without its variables.
            session.kernel = None
            await self._pool.release(kernel, KillCause.DIED)
            return await kernel.run(code, limit_seconds)
        if kernel is None:
            kernel = await self._give_kernel(session)
        directory = working_directory(cwd)
        if directory is not None and directory != session.grants.cwd:
            await self._change_directory(kernel, directory)
            session.grants = replace(session.grants, cwd=directory)
        result = await kernel.run(code, limit_seconds)
        if result.state_lost:
            session.kernel = None
            await self._pool.release(kernel, KillCause.DIED)
        return result

    async def _change_directory(self, kernel: Kernel, directory: Path) -> None:
        # Landlock does not govern chdir, so whether the kernel sees anything there must be asked.
        code = f"__import__('os').listdir({str(directory)!r}) and None\n__import__('os').chdir({str(directory)!r})"
        result = await kernel.run(code, _CHDIR_TIMEOUT_SECONDS, silent=True)
        if result.status is not CellStatus.OK:
            raise WorkingDirectoryError(
                f"cwd {str(directory)!r}: the kernel may not use it; folders are granted when a session is opened: "
                f"those below {self._workspace}, and what any kernel may read"
            )

    def _count(self, result: CellResult) -> None:
        self._metrics.cells.labels(result.status.value).inc()
        self._metrics.cell_seconds.observe(result.seconds)
        if result.truncated:
            self._metrics.truncations.inc()
        if result.status is CellStatus.OK:
            self._last_success = self._clock()
