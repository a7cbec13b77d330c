"""Sessions in a tenant's sandbox: their names, the one that a job has, and the deletion of those that are left over."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from s1vl_orchestrator.sandbox import Cell, Grants, SandboxClient, SandboxUnavailableError

log = logging.getLogger(__name__)

SESSION_PREFIX = "s1vl-"
INIT_SECONDS = 60
OPEN_SECONDS = 20.0
"""How long a sandbox that has no session for us is asked again; a replaced pod needs a few seconds."""


def new_session_id(seconds: float) -> str:
    """A random session id that also says when its job is surely over, so that any instance may sweep it then."""
    return f"{SESSION_PREFIX}{int(time.time() + seconds):x}-{secrets.token_urlsafe(16)}"


def is_orphan(session_id: str, now: float) -> bool:
    """Whether a session is one of ours and its job is surely over (its instance died)."""
    if not session_id.startswith(SESSION_PREFIX):
        return False
    try:
        return int(session_id.removeprefix(SESSION_PREFIX).split("-")[0], 16) < now
    except ValueError:
        return False


class Sweeper:
    """Deletes sessions whose deletion failed, again and again until they are gone."""

    def __init__(self) -> None:
        self._left: set[str] = set()

    def add(self, session_id: str) -> None:
        """Remember a session that could not be deleted."""
        self._left.add(session_id)

    def discard(self, session_id: str) -> None:
        """Forget a session that is gone."""
        self._left.discard(session_id)

    async def sweep(self, client: SandboxClient, *, orphans: bool = False) -> int:
        """Try again; returns how many are left. With `orphans`, those of instances that died as well."""
        doomed = set(self._left)
        if orphans:
            doomed |= {name for name in await client.session_ids() if is_orphan(name, time.time())}
        for session_id in doomed:
            await client.delete(session_id)
            self._left.discard(session_id)
        return len(self._left)


class JobKernel:
    """A job's own session: opened at the first cell, reopened when it was lost, deleted by `close`, always."""

    def __init__(
        self, client: SandboxClient, sweeper: Sweeper, init_code: str, grants: Grants, life_seconds: float
    ) -> None:
        self._client = client
        self._sweeper = sweeper
        self._init_code = init_code
        self._promised: list[str] = []
        self._kept = 0
        self._grants = grants
        self._life_seconds = life_seconds
        self._session_id: str | None = None
        self._creating: asyncio.Future[None] | None = None
        self._deleting: asyncio.Future[None] | None = None
        self._count = 0
        self._cells = 0

    def promise(self, code: str) -> None:
        """Have code run before the next cell, and once more in every session that is opened later."""
        self._promised.append(code)

    async def run(self, code: str, seconds: int) -> Cell:
        """Run a cell.

        After a status `timeout` or `lost` all variables are gone and the next cell gets a fresh session.

        Raises:
            SandboxUnavailableError: If there is no session to be had.
        """
        if self._session_id is None:
            await self._open()
        first = self._cells == 0
        try:
            cell = await self._keep_promises(seconds) or await self._execute(code, seconds)
        except SandboxUnavailableError as error:
            log.warning("the job's session was lost: %s", error)
            await self.close()
            await self._open()
            # In the first cell nothing is lost but the cell itself. Later ones need what came before them.
            if not first:
                return Cell("lost")
            cell = await self._execute(code, seconds)
        self._cells += 1
        if cell.status == "timeout" or cell.state_lost or cell.status == "lost":
            # AIO has no interrupt: the cell runs on until its session is deleted.
            await self.close()
        return cell

    async def _keep_promises(self, seconds: int) -> Cell | None:
        """Run what the session has not seen yet; returns a lost cell when the session did not survive it."""
        if self._kept == len(self._promised):
            return None
        code = "\n".join(self._promised[self._kept :])
        cell = await self._execute(code, min(seconds, INIT_SECONDS))
        if cell.state_lost or cell.status in ("timeout", "lost"):
            return Cell("lost")
        self._kept = len(self._promised)
        return None

    async def _execute(self, code: str, seconds: int) -> Cell:
        assert self._session_id is not None  # noqa: S101 - opened by run
        cell = await self._client.execute(self._session_id, code, seconds, self._grants)
        # A sandbox that restarted makes an unknown session anew without a word; its count starts over.
        if cell.execution_count is not None:
            if cell.execution_count < self._count and cell.status != "timeout":
                return Cell("lost", cell.outputs, cell.seconds)
            self._count = cell.execution_count
        return cell

    async def _open(self) -> None:
        give_up = time.monotonic() + OPEN_SECONDS
        session_id = new_session_id(self._life_seconds)
        # Set first: a creation that is cancelled half way has a session to delete.
        self._session_id = session_id
        self._client.metrics.sandbox_sessions.inc()
        while True:
            try:
                self._creating = asyncio.ensure_future(self._client.create(session_id, self._grants))
                await asyncio.shield(self._creating)
                break
            except SandboxUnavailableError as error:
                # All sessions are taken for the moment, or the pod is being replaced.
                if time.monotonic() >= give_up:
                    raise
                log.info("no session yet: %s", error)
                await asyncio.sleep(0.5)
        code = "\n".join((self._init_code, *self._promised))
        cell = await self._client.execute(session_id, code, INIT_SECONDS, self._grants)
        if cell.status != "ok":
            reasons = [f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs if o.get("output_type") == "error"]
            raise SandboxUnavailableError(f"the session could not be prepared: {cell.status} {' '.join(reasons)}")
        self._count = cell.execution_count or 0
        self._kept = len(self._promised)

    async def close(self) -> None:
        """Delete the session, also while being cancelled; what cannot be deleted now is left to the sweeper."""
        session_id, self._session_id = self._session_id, None
        if session_id is None:
            return
        self._client.metrics.sandbox_sessions.dec()
        self._sweeper.add(session_id)
        self._deleting = asyncio.ensure_future(self._delete(session_id, self._creating))
        await asyncio.shield(self._deleting)

    async def _delete(self, session_id: str, creating: asyncio.Future[None] | None) -> None:
        try:
            if creating is not None and not creating.done():
                # A deletion that overtakes the creation would find nothing to delete.
                await asyncio.wait([creating])
            await self._client.delete(session_id)
        except SandboxUnavailableError as error:
            self._client.metrics.sandbox_delete_failures.inc()
            log.warning("a session is left to the sweeper: %s", error)
        else:
            self._sweeper.discard(session_id)
