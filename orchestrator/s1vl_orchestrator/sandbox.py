"""The client of a tenant's sandbox (AIO Sandbox's Jupyter API)."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp

from s1vl_orchestrator.sandbox_keys import SandboxKeys
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
CREATE_SECONDS = 60.0
OVERHEAD_SECONDS = 15.0
"""Client-side patience beyond a cell's own timeout."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024


_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)
_CONNECTIONS = 1000
_IDLE_SECONDS = 4.0
"""Servers close a connection that was idle for 5 s (uvicorn's default); a cell that meets that is not repeated."""


def sandbox_connections() -> aiohttp.ClientSession:
    """Connections to sandboxes. To be made in the event loop, and closed.

    What hostile code may answer is not obeyed: no cookies are kept and nothing is unpacked.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    )


class SandboxUnavailableError(Exception):
    """The sandbox cannot be reached, refuses us, or answers with nonsense."""


class SandboxUnreachableError(SandboxUnavailableError):
    """Nothing takes connections there."""


class SandboxBusyError(SandboxUnavailableError):
    """All sessions of the sandbox are taken."""


class SandboxDrainingError(SandboxUnavailableError):
    """The sandbox is shutting down: it goes on with the sessions that it has and opens no other."""


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
    """Speaks to one tenant's sandbox.

    Args:
        url: Where it is.
        keys: Its API keys.
        takes_grants: It is ours. What the stock AIO image does with a field that it does not know is not documented.
        http: Connections.
        metrics: Counts cells and sessions.
    """

    def __init__(
        self, url: str, keys: SandboxKeys, *, takes_grants: bool, http: aiohttp.ClientSession, metrics: Metrics
    ) -> None:
        self.url = url
        self._keys = keys
        self._key: str | None = None
        self._takes_grants = takes_grants
        self._http = http
        self.metrics = metrics

    async def boot_id(self, connect: float = CONNECT_SECONDS) -> str:
        """What changes when the sandbox is another process; "" where it does not say (the stock AIO image).

        Args:
            connect: Seconds that connecting may take. While a pod's network is being set up nobody answers at all.
        """
        data = await self._call("GET", "/v1/sandbox", wait=5, connect=connect)
        return str(data.get("boot_id", ""))

    async def create(self, session_id: str, grants: Grants) -> None:
        """Open a session and its kernel.

        Raises:
            SandboxBusyError: All sessions are taken.
            SandboxDrainingError: It opens no more.
            SandboxRefusedError: The sandbox does not have the working directory.
            SandboxUnavailableError: For everything else.
        """
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
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        key: str | None,
        *,
        limits: aiohttp.ClientTimeout,
        attempts: int,
    ) -> tuple[int, str, bytes]:
        url = f"{self.url}{path}"
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **({"X-AIO-API-Key": key} if key else {})}
        while True:
            attempts -= 1
            try:
                async with self._http.request(
                    method, url, data=content, headers=headers, timeout=limits, allow_redirects=False
                ) as answer:
                    raw = bytearray()
                    # The code on the other side is hostile and decides how much there is.
                    async for chunk in answer.content.iter_any():
                        raw += chunk
                        if len(raw) > MAX_ANSWER_BYTES:
                            raise SandboxUnavailableError(f"{method} {path}: over {MAX_ANSWER_BYTES} bytes")
                    return answer.status, answer.reason or "", bytes(raw)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise SandboxUnreachableError(f"{method} {path}: {type(error).__name__} {error}") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                # Most likely a kept connection to a pod that was replaced.
                if not isinstance(error, _BROKEN) or not attempts:
                    raise SandboxUnavailableError(f"{method} {path}: {type(error).__name__} {error}".strip()) from error

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        wait: float,
        connect: float = CONNECT_SECONDS,
        absent_is_fine: bool = False,
    ) -> dict[str, Any]:
        # Opening and closing the same session twice is harmless; running the same code twice is not.
        attempts = 1 if path.endswith("/execute") else 2
        limits = aiohttp.ClientTimeout(total=wait, sock_connect=connect)
        for key in self._keys.to_try(self._key):
            status, reason, raw = await self._send(method, path, body, key, limits=limits, attempts=attempts)
            if status != HTTPStatus.UNAUTHORIZED:
                self._key = key
                break
        else:
            self._keys.doubt()
        if absent_is_fine and status == HTTPStatus.NOT_FOUND:
            return {}
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError):
            envelope = {}
        envelope = envelope if isinstance(envelope, dict) else {}
        message = str(envelope.get("message") or reason)[:300]
        if status != HTTPStatus.OK or not envelope.get("success"):
            said = f"{method} {path}: HTTP {status} {message}"
            if status == HTTPStatus.TOO_MANY_REQUESTS or "limit" in message.lower():
                raise SandboxBusyError(said)
            if status == HTTPStatus.SERVICE_UNAVAILABLE and "draining" in message.lower():
                raise SandboxDrainingError(said)
            raise SandboxRefusedError(said) if status in _REFUSED else SandboxUnavailableError(said)
        data = envelope.get("data")
        return data if isinstance(data, dict) else {}
