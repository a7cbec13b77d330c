"""Stands between the orchestrator and an engine with made-up weights, and makes the model say a job's script.

Each chat request gets the fields that leave the model one text to say. All else, both ways, goes through as it is: what
is cut, counted, cached and refused is the engine's doing.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hack.vllm import scripted

Messages = list[dict[str, Any]]
CHAT = "/v1/chat/completions"
_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}


@dataclass
class Step:
    """One turn of the script.

    Attributes:
        text: All that the model says, or what makes it of the prompt's messages.
        pace: Seconds that each chunk of the stream is held back.
        stranger: The first request goes to an engine that has seen none of the job's pictures: those that are named by
            their uuid alone get names that this one does not know.
        before: Runs once before the request goes out.
        within: Runs once when the engine has said something of the turn.
        refused: Runs once when the engine did not take the request.
    """

    text: str | Callable[[Messages], str]
    pace: float = 0.0
    stranger: bool = False
    before: Callable[[], Any] | None = None
    within: Callable[[], Any] | None = None
    refused: Callable[[], Any] | None = None


@dataclass
class Exchange:
    """One chat request: what the orchestrator sent, and what came of it.

    Attributes:
        prompt: The prompt's tokens as `/tokenize` gives them for the same messages; [] unless asked for.
        reasoning, content: What the engine said, as far as it was read.
        finish: vLLM's `finish_reason`, "" when the stream ended before it.
        usage: The last one of the stream.
        error: The message of an answer other than 200.
    """

    sent: dict[str, Any]
    status: int = 0
    prompt: list[int] = field(default_factory=list)
    said: str = ""
    reasoning: str = ""
    content: str = ""
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def messages(self) -> Messages:
        return list(self.sent["messages"])

    @property
    def pictures(self) -> list[dict[str, Any]]:
        """All image parts, in order."""
        return [part for part in _parts(self.messages) if part["type"] == "image_url"]

    @property
    def sent_whole(self) -> list[bool]:
        """For each picture, whether it was sent (True) or only named."""
        return [part["image_url"] is not None for part in self.pictures]

    def read(self, stream: bytes) -> None:
        """Take what the engine sent, whole or a stream as far as it came."""
        if not self.sent.get("stream"):
            body = json.loads(stream)
            message = body["choices"][0]["message"]
            self.reasoning, self.content = message.get("reasoning") or "", message.get("content") or ""
            self.finish, self.usage = body["choices"][0]["finish_reason"], body["usage"]
            return
        *lines, _ = stream.split(b"\n")
        for line in lines:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            self.usage = event.get("usage") or self.usage
            for choice in event.get("choices", []):
                self.reasoning += choice["delta"].get("reasoning") or ""
                self.content += choice["delta"].get("content") or ""
                self.finish = choice["finish_reason"] or self.finish


class ScriptedEngine:
    """The proxy.

    Attributes:
        url: The engine behind it; may change while it runs, as the address of a service whose pod is replaced.
        script: Turns to come. One is used up when the engine takes the request (200), so that a request that it refused
            gets the same turn again.
        exchanges: All chat requests so far.
        tokenizing: Ask `/tokenize` for each prompt that the engine took.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: list[Step] = []
        self.exchanges: list[Exchange] = []
        self.tokenizing = False
        self._http = httpx.AsyncClient(trust_env=False, timeout=600)

    async def close(self) -> None:
        await self._http.aclose()

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(
            routes=[
                Route(CHAT, self._chat, methods=["POST"]),
                Route("/{path:path}", self._pass_on, methods=methods),
            ]
        )

    def say(self, *turns: str | Step | Callable[[Messages], str]) -> None:
        """Set the script, and forget the exchanges of the one before."""
        self.script = [turn if isinstance(turn, Step) else Step(turn) for turn in turns]
        self.exchanges = []

    @property
    def taken(self) -> list[Exchange]:
        """The exchanges in which the engine took the request."""
        return [exchange for exchange in self.exchanges if exchange.status == 200]

    async def tokenize(self, **prompt: Any) -> dict[str, Any]:
        """The engine's own count: `messages=[...]`, or `prompt=` a text, of which nothing is added to."""
        body = {**prompt, **({"add_special_tokens": False} if "prompt" in prompt else {})}
        answer = await self._http.post(f"{self.url}/tokenize", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def metrics(self) -> dict[str, float]:
        """The engine's counters and gauges by name, without labels; series of one name are summed."""
        found: dict[str, float] = {}
        for line in (await self._http.get(f"{self.url}/metrics")).text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    async def block_tokens(self) -> int:
        """Tokens of a block of the engine's KV cache: only whole ones are found again."""
        said = (await self._http.get(f"{self.url}/metrics")).text
        found = re.search(r'^vllm:cache_config_info{.*\bblock_size="(\d+)"', said, re.MULTILINE)
        assert found, "no vllm:cache_config_info"
        return int(found[1])

    async def _pass_on(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        url = f"{self.url}{request.url.path}?{request.url.query}".rstrip("?")
        try:
            answer = await self._http.request(request.method, url, content=await request.body(), headers=headers)
        except httpx.TransportError as error:
            return JSONResponse({"error": {"message": f"no engine: {error!r}"}}, 502)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    async def _chat(self, request: Request) -> Response:
        sent = await request.json()
        exchange = Exchange(sent)
        self.exchanges.append(exchange)
        if not self.script:
            return JSONResponse({"error": {"message": "the script has no turn for this request"}}, 500)
        step = self.script[0]
        if step.before:
            before, step.before = step.before, None
            await _call(before)
        response = await self._forward(sent, step, exchange)
        if exchange.status == 200:
            self.script.remove(step)
        elif step.refused:
            refused, step.refused = step.refused, None
            await _call(refused)
        return response

    async def _forward(self, sent: dict[str, Any], step: Step, exchange: Exchange) -> Response:
        text = step.text if isinstance(step.text, str) else step.text(sent["messages"])
        body = {**sent, **scripted(text)}
        if step.stranger:
            step.stranger = False
            body["messages"] = _renamed(sent["messages"])
        try:
            upstream = self._http.build_request("POST", f"{self.url}{CHAT}", json=body)
            answer = await self._http.send(upstream, stream=True)
        except httpx.TransportError as error:
            exchange.status, exchange.error = 502, repr(error)
            return JSONResponse({"error": {"message": f"no engine: {error!r}"}}, 502)
        exchange.status, exchange.said = answer.status_code, text
        kind = answer.headers.get("content-type")
        if answer.status_code != 200:
            content = await answer.aread()
            exchange.error = str(json.loads(content)["error"]["message"])
            return Response(content, answer.status_code, media_type=kind)
        if self.tokenizing:
            exchange.prompt = (await self.tokenize(model=sent["model"], messages=sent["messages"]))["tokens"]
        return StreamingResponse(_relay(answer, exchange, step), media_type=kind)


async def _relay(answer: httpx.Response, exchange: Exchange, step: Step) -> AsyncIterator[bytes]:
    """What the engine sends. Closed early, as when the orchestrator hangs up, it hangs up on the engine."""
    seen = b""
    try:
        async for chunk in answer.aiter_bytes():
            seen += chunk
            if step.within and b'"reasoning":"' in seen:
                within, step.within = step.within, None
                await _call(within)
            if step.pace:
                await asyncio.sleep(step.pace)
            yield chunk
    finally:
        exchange.read(seen)
        await answer.aclose()


async def _call(function: Callable[[], Any]) -> None:
    result = function()
    if asyncio.iscoroutine(result):
        await result


def _parts(messages: Messages) -> list[dict[str, Any]]:
    return [part for message in messages if isinstance(message["content"], list) for part in message["content"]]


def _renamed(messages: Messages) -> Messages:
    renamed: Messages = json.loads(json.dumps(messages))
    for part in _parts(renamed):
        if part["type"] == "image_url" and part["image_url"] is None:
            part["uuid"] = uuid.uuid4().hex
    return renamed
