"""A job's kernel: one session at one pod of the tenant's sandbox, opened anew elsewhere when that pod is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from s1vl_orchestrator.sandbox import (
    Cell,
    Grants,
    SandboxBusyError,
    SandboxDrainingError,
    SandboxRefusedError,
    SandboxUnavailableError,
    SandboxUnreachableError,
)
from s1vl_orchestrator.sandbox_pod import SandboxPod
from s1vl_orchestrator.sandbox_pods import SandboxPods
from s1vl_orchestrator.sandbox_sessions import new_session_id

log = logging.getLogger(__name__)

INIT_SECONDS = 60
OPEN_SECONDS = 20.0
"""How long pods that answer and have no session for us are asked again."""
_NOT_OPENED = (SandboxBusyError, SandboxDrainingError, SandboxRefusedError, SandboxUnreachableError)
"""After these there is surely no session to be deleted."""


class _UnpreparedError(SandboxUnavailableError):
    """The session's first cell failed: it would anywhere."""


class JobKernel:
    """A job's own session: opened at the first cell, reopened when it was lost, deleted by `close`, always."""

    def __init__(self, pods: SandboxPods, init_code: str, grants: Grants, life_seconds: float) -> None:
        self._pods = pods
        self._init_code = init_code
        self._promised: list[str] = []
        self._kept = 0
        self._grants = grants
        self._life_seconds = life_seconds
        self._pod: SandboxPod | None = None
        self._session_id = ""
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
        if self._pod is None:
            await self._open()
        first = self._cells == 0
        try:
            cell = await self._keep_promises(seconds) or await self._execute(code, seconds)
        except SandboxUnavailableError as error:
            log.warning("the job's session was lost: %s", error)
            self._pods.metrics.sandbox_sessions_lost.inc()
            if self._pod:
                self._pods.failed(self._pod, error)
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
        assert self._pod  # noqa: S101 - opened by run
        cell = await self._pod.client.execute(self._session_id, code, seconds, self._grants)
        # A sandbox that restarted makes an unknown session anew without a word; its count starts over.
        if cell.execution_count is not None:
            if cell.execution_count < self._count and cell.status != "timeout":
                return Cell("lost", cell.outputs, cell.seconds)
            self._count = cell.execution_count
        return cell

    async def _open(self) -> None:
        """Open a session at a pod that has one for us, and wait for such a pod where that is of use."""
        failures: Counter[str] = Counter()
        asked_since: dict[str, float] = {}
        while True:
            pod = await self._pods.take(failures)
            began = asked_since.setdefault(pod.address, time.monotonic())
            try:
                await self._open_at(pod)
            except SandboxUnavailableError as error:
                self._pods.failed(pod, error)
                if isinstance(error, _NOT_OPENED):
                    self._leave()
                else:
                    await self.close()
                if isinstance(error, _UnpreparedError) or time.monotonic() >= began + OPEN_SECONDS:
                    raise
                log.info("no session yet: %s", error)
            else:
                return
            failures[pod.address] += 1
            if failures[pod.address] > 1:
                await asyncio.sleep(0.5)

    async def _open_at(self, pod: SandboxPod) -> None:
        # Set first: a creation that is cancelled half way has a session to delete.
        self._pod, self._session_id = pod, new_session_id(self._life_seconds)
        self._pods.metrics.sandbox_sessions.inc()
        self._creating = asyncio.ensure_future(pod.client.create(self._session_id, self._grants))
        await asyncio.shield(self._creating)
        code = "\n".join((self._init_code, *self._promised))
        cell = await pod.client.execute(self._session_id, code, INIT_SECONDS, self._grants)
        if cell.status != "ok":
            reasons = [f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs if o.get("output_type") == "error"]
            raise _UnpreparedError(f"the session could not be prepared: {cell.status} {' '.join(reasons)}")
        self._count = cell.execution_count or 0
        self._kept = len(self._promised)

    async def close(self) -> None:
        """Delete the session, also while being cancelled; what cannot be deleted now is left to the sweeper."""
        pod, session_id = self._pod, self._session_id
        if pod is None:
            return
        self._pod = None
        self._pods.metrics.sandbox_sessions.dec()
        pod.sweeper.add(session_id)
        self._deleting = asyncio.ensure_future(self._delete(pod, session_id, self._creating))
        await asyncio.shield(self._deleting)

    def _leave(self) -> None:
        """Give up a place at which no session was opened."""
        pod, self._pod = self._pod, None
        if pod is not None:
            self._pods.metrics.sandbox_sessions.dec()
            self._pods.leave(pod)

    async def _delete(self, pod: SandboxPod, session_id: str, creating: asyncio.Future[None] | None) -> None:
        try:
            if creating is not None and not creating.done():
                # A deletion that overtakes the creation would find nothing to delete.
                await asyncio.wait([creating])
            await pod.client.delete(session_id)
        except SandboxUnavailableError as error:
            self._pods.metrics.sandbox_delete_failures.inc()
            log.warning("a session is left to the sweeper: %s", error)
        else:
            pod.sweeper.discard(session_id)
        finally:
            self._pods.leave(pod)
