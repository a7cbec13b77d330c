"""The client of a tenant's sandbox (AIO Sandbox's Jupyter API), and the one session that a job has there."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

SESSION_PREFIX = "s1vl-"
CONNECT_SECONDS = 3.0
CREATE_SECONDS = 60.0
INIT_SECONDS = 60
OVERHEAD_SECONDS = 15.0
"""Client-side patience beyond a cell's own timeout."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
OPEN_SECONDS = 20.0
"""How long a sandbox that has no session for us is asked again; a replaced pod needs a few seconds."""


_REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY)


class SandboxUnavailableError(Exception):
    """The sandbox cannot be reached, refuses us, or answers with nonsense."""


class SandboxBusyError(SandboxUnavailableError):
    """All sessions of the sandbox are taken."""


class SandboxRefusedError(SandboxUnavailableError):
    """The sandbox is well and takes the request for a wrong one, e.g. because a folder does not exist there."""


@dataclass(frozen=True)
class Grants:
    """What a session may reach on the image volume, by the sandbox's own paths.

    Our runtime enforces them, and gives a session without any the whole folder of its tenant to read. The stock AIO
    image knows the working directory only.

    Attributes:
        cwd: Working directory; all below it may be read and written.
        readable: Files and folders that may be read, all of them: what is not named cannot be.
    """

    cwd: str
    readable: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One executed cell.

    Attributes:
        status: `ok`, `error`, `timeout`, or `lost` when the kernel vanished before or during it.
        outputs: Jupyter outputs (stream, execute_result, display_data, error).
        seconds: As seen from here.
    """

    status: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    execution_count: int | None = None
    state_lost: bool = False


class SandboxClient:
    """Speaks to one tenant's sandbox."""

    def __init__(self, url: str, key: str | None, http: httpx.AsyncClient, metrics: Metrics) -> None:
        self.url = url
        self._headers = {"X-AIO-API-Key": key} if key else {}
        self._http = http
        self._takes_grants = False
        self.metrics = metrics

    async def boot_id(self) -> str:
        """What changes when the sandbox is another process; "" where it does not say (the stock AIO image)."""
        data = await self._call("GET", "/v1/sandbox", wait=5)
        boot_id = str(data.get("boot_id", ""))
        # What the stock image does with a field that it does not know is not documented.
        self._takes_grants = bool(boot_id)
        return boot_id

    async def create(self, session_id: str, grants: Grants) -> None:
        """Open a session and its kernel.

        Raises:
            SandboxBusyError: All sessions are taken.
            SandboxRefusedError: The sandbox does not have the working directory.
            SandboxUnavailableError: For everything else.
        """
        # Every time: a sandbox may have been replaced by one of another kind, and a session without its grants
        # would read all that the tenant has.
        await self.boot_id()
        body = {"session_id": session_id, "cwd": grants.cwd, **self._grants(grants)}
        await self._call("POST", "/v1/jupyter/sessions/create", body, wait=CREATE_SECONDS)

    async def execute(self, session_id: str, code: str, seconds: int, grants: Grants) -> Cell:
        """Run a cell. HTTP 200 says only that it was handled: the status is in the data.

        Args:
            session_id: An unknown one is opened by the sandbox without a word.
            code: Python source.
            seconds: The cell's time.
            grants: Those of `create`, for a session that the sandbox opens anew.

        Raises:
            SandboxUnavailableError: If the sandbox cannot be reached, refuses us, or answers with nonsense.
        """
        began = time.monotonic()
        body = {"session_id": session_id, "code": code, "timeout": seconds, **self._grants(grants)}
        data = await self._call("POST", "/v1/jupyter/execute", body, wait=seconds + OVERHEAD_SECONDS)
        status, outputs = data.get("status"), data.get("outputs")
        if status not in ("ok", "error", "timeout") or not isinstance(outputs, list):
            raise SandboxUnavailableError(f"the sandbox answered a cell with status {status!r}")
        took = time.monotonic() - began
        self.metrics.sandbox_seconds.labels(status).observe(took)
        return Cell(
            status=status,
            outputs=[output for output in outputs if isinstance(output, dict)],
            seconds=took,
            execution_count=data.get("execution_count"),
            state_lost=bool(data.get("state_lost", False)),
        )

    async def delete(self, session_id: str) -> None:
        """Close a session; one that is gone is fine."""
        await self._call("DELETE", f"/v1/jupyter/sessions/{session_id}", wait=10, absent_is_fine=True)

    async def session_ids(self) -> list[str]:
        """All open sessions, whoever opened them."""
        sessions = (await self._call("GET", "/v1/jupyter/sessions", wait=10)).get("sessions") or []
        if isinstance(sessions, dict):
            return [str(name) for name in sessions]
        return [str(item.get("session_id", "")) if isinstance(item, dict) else str(item) for item in sessions]

    def _grants(self, grants: Grants) -> dict[str, Any]:
        return {"cwd": grants.cwd, "readable": list(grants.readable)} if self._takes_grants else {}

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, wait: float, attempts: int
    ) -> tuple[int, str, bytes]:
        limits = httpx.Timeout(wait, connect=CONNECT_SECONDS)
        url = f"{self.url}{path}"
        while True:
            attempts -= 1
            try:
                async with self._http.stream(method, url, json=body, headers=self._headers, timeout=limits) as answer:
                    raw = bytearray()
                    # The code on the other side is hostile and decides how much there is.
                    async for chunk in answer.aiter_bytes():
                        raw += chunk
                        if len(raw) > MAX_ANSWER_BYTES:
                            raise SandboxUnavailableError(f"{method} {path}: over {MAX_ANSWER_BYTES} bytes")
                    return answer.status_code, answer.reason_phrase, bytes(raw)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # Most likely a kept connection to a pod that was replaced.
                if not attempts:
                    raise SandboxUnavailableError(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
            except httpx.HTTPError as error:
                raise SandboxUnavailableError(f"{method} {path}: {type(error).__name__} {error}".strip()) from error

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        wait: float,
        absent_is_fine: bool = False,
    ) -> dict[str, Any]:
        # Opening and closing the same session twice is harmless; running the same code twice is not.
        attempts = 1 if path.endswith("/execute") else 2
        status, reason, raw = await self._send(method, path, body, wait=wait, attempts=attempts)
        if absent_is_fine and status == httpx.codes.NOT_FOUND:
            return {}
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError):
            envelope = {}
        envelope = envelope if isinstance(envelope, dict) else {}
        message = str(envelope.get("message") or reason)[:300]
        if status != httpx.codes.OK or not envelope.get("success"):
            said = f"{method} {path}: HTTP {status} {message}"
            if status == httpx.codes.TOO_MANY_REQUESTS or "limit" in message.lower():
                raise SandboxBusyError(said)
            raise SandboxRefusedError(said) if status in _REFUSED else SandboxUnavailableError(said)
        data = envelope.get("data")
        return data if isinstance(data, dict) else {}


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
        self._grants = grants
        self._life_seconds = life_seconds
        self._session_id: str | None = None
        self._creating: asyncio.Future[None] | None = None
        self._deleting: asyncio.Future[None] | None = None
        self._count = 0
        self._cells = 0

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
            cell = await self._execute(code, seconds)
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
        cell = await self._client.execute(session_id, self._init_code, INIT_SECONDS, self._grants)
        if cell.status != "ok":
            reasons = [f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs if o.get("output_type") == "error"]
            raise SandboxUnavailableError(f"the session could not be prepared: {cell.status} {' '.join(reasons)}")
        self._count = cell.execution_count or 0

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
