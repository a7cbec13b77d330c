"""Asks an OpenAI-compatible server, and asks again where it only wants to be asked later."""

from __future__ import annotations

import asyncio
import email.utils
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, Field, ValidationError

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation.results import Usage

PATIENCE_SECONDS = 600.0
"""How long one question is asked again of a server that is not available, as while an engine loads its weights."""

_FIRST_WAIT, _LONGEST_WAIT, _SHORTEST_WAIT = 1.0, 30.0, 0.05
_LATER = frozenset((429, 502, 503, 504))
_REFUSED = frozenset((301, 302, 303, 307, 308, 401, 403, 404, 405))
"""What no later question will fare better with: a wrong key, model or URL."""
_BROKEN = frozenset(("engine_error", "sandbox_unavailable"))
"""Reasons why s1vl's jobs end that are not the model's doing: such an answer says nothing about the model."""


class NoAnswerError(Exception):
    """A question got no answer.

    Attributes:
        status: The HTTP status of the last attempt, None where there was none.
        gone: No question at all was answered while this one waited.
    """

    def __init__(self, message: str, status: int | None = None, *, gone: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.gone = gone


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `turns` and `usage` are None where the server does not say."""

    text: str
    stop_reason: str
    turns: int | None
    usage: Usage | None
    seconds: float


class _Later(Exception):  # noqa: N818  (not an error yet)
    def __init__(self, message: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait = wait


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Facts(BaseModel):
    """`thinking_with_images` of s1vl's answers."""

    stop_reason: str
    detail: str = ""
    turns: list[Any] = []


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None
    thinking_with_images: _Facts | None = None


class Client:
    """A server's chat completions. Use it as a context manager.

    Args:
        base_url: As OpenAI's clients take it; `/v1` is added where it has no path.
        api_key: Sent as a bearer token; "" for none.
        timeout: Seconds from a request to its whole answer.
        connections: How many requests are under way at once.
        patience: As `PATIENCE_SECONDS`.

    Raises:
        CommandError: The URL is none.
    """

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float, connections: int, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._url = _base(base_url)
        self._timeout = timeout
        self._patience = patience
        self._last_reply = 0.0
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=10),
            limits=httpx.Limits(max_connections=connections),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def model(self) -> str:
        """The name of the first model that the server lists.

        Raises:
            CommandError: It lists none.
        """
        url = f"{self._url}/models"
        try:
            async with asyncio.timeout(60):
                response = await self._http.get(url)
        except (httpx.HTTPError, TimeoutError) as error:
            raise CommandError(f"{url} does not answer: {_reason(error)}") from error
        if response.status_code != 200:
            raise CommandError(f"{url} answers {response.status_code}: {_message(response)}")
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise CommandError(f"{url} lists no model; name one with --model") from error

    async def ask(self, body: bytes) -> Reply:
        """Ask until there is an answer, or no hope of one.

        A server that is too busy (429) is asked again for as long as it answers others.

        Args:
            body: A chat completion request as JSON.

        Raises:
            NoAnswerError: There will be none to this question.
            CommandError: There will be none to any: the key, the model or the URL is wrong.
        """
        started, wait = time.monotonic(), _FIRST_WAIT
        while True:
            try:
                return await self._attempt(body)
            except _Later as later:
                pause = max(wait if later.wait is None else later.wait, _SHORTEST_WAIT)
                since = max(started, self._last_reply) if later.status == 429 else started
                if time.monotonic() + pause > since + self._patience:
                    message = f"{later} (asked again for {time.monotonic() - started:.0f} s)"
                    raise NoAnswerError(message, later.status, gone=self._last_reply < started) from later
            await asyncio.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _attempt(self, body: bytes) -> Reply:
        started = time.monotonic()
        url = f"{self._url}/chat/completions"
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._http.post(url, content=body, headers={"Content-Type": "application/json"})
        except TimeoutError as error:
            raise NoAnswerError(f"no answer within {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise _Later(f"{url} does not answer: {_reason(error)}") from error
        status = response.status_code
        if status in _LATER:
            raise _Later(f"{status}: {_message(response)}", status, _retry_after(response))
        if status in _REFUSED:
            raise CommandError(f"{url} answers {status}: {_message(response)}")
        if status != 200:
            raise NoAnswerError(f"{status}: {_message(response)}", status)
        reply = _reply(response, time.monotonic() - started)
        self._last_reply = time.monotonic()
        return reply


def _base(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CommandError(f"--base-url {url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CommandError(f"--base-url {url!r} is no URL of http or https")
    return url.rstrip("/") if parsed.path.strip("/") else f"{url.rstrip('/')}/v1"


def _reply(response: httpx.Response, seconds: float) -> Reply:
    try:
        completion = _Completion.model_validate(response.json())
    except (ValueError, ValidationError) as error:
        raise NoAnswerError(f"200, but no chat completion: {response.text[:200]!r}", 200) from error
    facts, choice = completion.thinking_with_images, completion.choices[0]
    if facts and facts.stop_reason in _BROKEN:
        raise NoAnswerError(f"200, but not by the model alone: {facts.stop_reason}: {facts.detail}", 200)
    return Reply(
        # Half a surrogate pair is valid in JSON, but nothing that could be written down.
        text=(choice.message.content or "").encode(errors="replace").decode(),
        stop_reason=facts.stop_reason if facts else choice.finish_reason or "",
        turns=len(facts.turns) if facts else None,
        usage=completion.usage,
        seconds=round(seconds, 3),
    )


def _message(response: httpx.Response) -> str:
    """What an error says, in any server's form."""
    try:
        error = response.json().get("error") or response.json()
        message = error if isinstance(error, str) else f"{error.get('code') or ''} {error['message']}"
    except (ValueError, LookupError, AttributeError, TypeError):
        message = response.text
    return " ".join(message.split())[:300]


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()
