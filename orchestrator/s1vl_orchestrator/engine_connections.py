"""Connections to one engine pod, and what their failures mean."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import aiohttp

from s1vl_orchestrator.engine_errors import Cause, TryAgainError, failure_of

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 5.0
"""Even `/health` may take that long where the engine is busy."""
IDLE_SECONDS = 4.0
"""vLLM closes a connection that was idle for 5 s (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`); ours are closed before it does."""

_CONNECTIONS = 1000
_HEADERS = {"Content-Type": "application/json"}
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
_SOCKET_OPTIONS = (
    # A node that is gone without a word breaks its streams after half a minute, not at the end of the job's time.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


@dataclass(eq=False)
class _Pool:
    http: aiohttp.ClientSession
    users: int = 0


@dataclass
class _Attempt:
    connected: bool = False
    answered: bool = False


class Connections:
    """A pool of connections that can be replaced while some are in use: those end in peace."""

    def __init__(self) -> None:
        self._pool: _Pool | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def post(self, url: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its answer of status 200; leaving before its end aborts it.

        Raises:
            TryAgainError: For failures that may pass, also while the answer is read.
            EngineUnavailableError, TooManyImagesError, ContextFullError: As `failure_of`.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        attempt = _Attempt()
        with self._use() as pool:
            try:
                async with pool.http.post(
                    url,
                    data=io.BytesIO(content),
                    headers=_HEADERS,
                    timeout=_PATIENT,
                    allow_redirects=False,
                    trace_request_ctx=attempt,
                ) as answer:
                    attempt.answered = True
                    if answer.status != HTTPStatus.OK:
                        raise failure_of(answer.status, await answer.read(), answer.headers.get("retry-after", ""))
                    yield answer
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise TryAgainError(Cause.REFUSED, text_of(error)) from error
            except aiohttp.ClientError as error:
                if attempt.connected or attempt.answered:
                    raise TryAgainError(Cause.CONNECTION, text_of(error)) from error
                # A connection that was kept had been closed: vLLM does so without a word after some answers of 500.
                # The others may be closed too. To ask again is safe: a completion changes nothing in the engine.
                if self._pool is pool:
                    self._pool = None
                raise TryAgainError(Cause.STALE, text_of(error)) from error

    async def get(self, url: str) -> tuple[int, bytes]:
        """Ask for something small; returns status and body. Raises aiohttp.ClientError or TimeoutError."""
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        with self._use() as pool:
            async with pool.http.get(url, timeout=timeout, allow_redirects=False) as answer:
                return answer.status, await answer.read()

    async def close(self) -> None:
        """Close what is not in use now, and what is when it no longer is."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._close_unused(pool)
        if self._closing:
            await asyncio.wait(self._closing)

    @contextmanager
    def _use(self) -> Iterator[_Pool]:
        pool = self._pool
        if pool is None:
            pool = self._pool = _Pool(self._open())
        pool.users += 1
        try:
            yield pool
        finally:
            pool.users -= 1
            if pool is not self._pool:
                self._close_unused(pool)

    def _open(self) -> aiohttp.ClientSession:
        traces = aiohttp.TraceConfig()
        traces.on_connection_create_start.append(_connecting)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=IDLE_SECONDS, socket_factory=_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[traces],
        )

    def _close_unused(self, pool: _Pool) -> None:
        if not pool.users:
            # A task of its own: it is also closed where a request was cancelled.
            task = asyncio.create_task(pool.http.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for option in _SOCKET_OPTIONS:
        made.setsockopt(*option)
    return made


async def _connecting(_: aiohttp.ClientSession, trace: SimpleNamespace, __: object) -> None:
    if trace.trace_request_ctx is not None:
        trace.trace_request_ctx.connected = True


def text_of(error: Exception) -> str:
    """What an error says, with its kind: some say nothing."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
