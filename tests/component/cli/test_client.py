"""The client against a server that is busy, refuses, talks nonsense, or is not there."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse, Response

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation.client import Client, NoAnswerError, Reply, _retry_after
from s1vl_cli.evaluation.results import Usage
from tests.component.cli.conftest import MODEL, Scripted, completion, refusal


def client(url: str, key: str = "", *, timeout: float = 60, patience: float = 60) -> Client:
    return Client(url, key, timeout=timeout, connections=4, patience=patience)


async def ask(server: Scripted, **limits: float) -> Reply:
    async with client(server.url, **limits) as asking:
        return await asking.ask(b"{}")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (completion("A"), Reply("A", "stop", None, Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12), 0)),
        (completion(None, usage=None), Reply("", "stop", None, None, 0)),
        (
            completion(
                "B", usage=None, thinking_with_images={"stop_reason": "max_turns", "turns": [{}, {}], "id": "x"}
            ),
            Reply("B", "max_turns", 2, None, 0),
        ),
        ({"choices": [{"message": {"content": "C"}}]}, Reply("C", "", None, None, 0)),
    ],
)
async def test_answers(scripted: Scripted, answer: dict[str, object], reply: Reply) -> None:
    scripted.script = [answer]
    found = await ask(scripted)
    assert (found.text, found.stop_reason, found.turns, found.usage) == (
        reply.text,
        reply.stop_reason,
        reply.turns,
        reply.usage,
    )
    assert found.seconds >= 0


async def test_half_a_surrogate_pair_can_be_written_down(scripted: Scripted) -> None:
    body = b'{"choices": [{"message": {"content": "A \\ud83d"}}]}'
    scripted.script = [Response(body, media_type="application/json")]
    assert (await ask(scripted)).text == "A ?"


@pytest.mark.parametrize(("key", "header"), [("k", "Bearer k"), ("", "")])
async def test_the_key(scripted: Scripted, key: str, header: str) -> None:
    async with client(scripted.url, key=key) as asking:
        await asking.ask(b"{}")
    assert scripted.keys == [header]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_server_is_asked_again(scripted: Scripted, status: int) -> None:
    scripted.script = [
        refusal(status, **{"Retry-After": "0"}),
        refusal(status, **{"Retry-After": "0"}),
        completion("A"),
    ]
    assert (await ask(scripted)).text == "A"
    assert len(scripted.seen) == 3


async def test_the_server_says_when(scripted: Scripted) -> None:
    """It is not asked again before that, nor at all when that is longer than we wait."""
    scripted.script = [refusal(503, "engine_unavailable", "loading", **{"Retry-After": "3600"})]
    with pytest.raises(NoAnswerError, match=r"503: engine_unavailable loading \(asked again for 0 s\)") as error:
        await ask(scripted)
    assert (error.value.status, error.value.gone) == (503, True)
    assert len(scripted.seen) == 1


async def test_without_a_time_it_is_asked_again_soon(scripted: Scripted) -> None:
    scripted.script = [refusal(503), completion("A")]
    assert (await ask(scripted)).text == "A"


async def test_patience_ends(scripted: Scripted) -> None:
    scripted.script = [refusal(503, **{"Retry-After": "0"})]
    with pytest.raises(NoAnswerError, match="503: x scripted"):
        await ask(scripted, patience=0.3)
    assert len(scripted.seen) > 1


@pytest.mark.parametrize(("status", "answered"), [(429, True), (503, False)])
async def test_a_server_that_answers_others(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, status: int, answered: bool
) -> None:
    """One that is full is waited for as long as it answers others; one that fails is not, but it is not gone."""
    clock = [0.0]
    times = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
    monkeypatch.setattr("s1vl_cli.evaluation.client.time", times)
    async with client(scripted.url, patience=600) as asking:

        async def answer(body: dict[str, Any]) -> Response | dict[str, Any]:
            if body["other"]:
                return completion("B")
            await asking.ask(b'{"other": true}')
            clock[0] += 400
            return refusal(status, **{"Retry-After": "0"}) if clock[0] < 2000 else completion("A")

        scripted.script = [answer]
        if answered:
            assert (await asking.ask(b'{"other": false}')).text == "A"
            return
        with pytest.raises(NoAnswerError, match="asked again for 800 s") as error:
            await asking.ask(b'{"other": false}')
        assert not error.value.gone


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (400, '{"error": {"code": "invalid_image", "message": "broken"}}', "400: invalid_image broken"),
        (400, '{"error": {"code": null, "message": "Bad\\n request"}}', "400: Bad request"),
        (400, '{"message": "vLLM of old"}', "400: vLLM of old"),
        (413, '{"error": "too large"}', "413: too large"),
        (500, "<html>oh  no</html>", "500: <html>oh no</html>"),
        (500, "[]", r"500: \[\]"),
        (200, "<html>", "200, but no chat completion: '<html>'"),
        (200, '{"choices": []}', "200, but no chat completion"),
        (200, '{"choices": [{"message": {"content": 7}}]}', "200, but no chat completion"),
    ],
)
async def test_what_is_not_asked_again(scripted: Scripted, status: int, content: str, message: str) -> None:
    scripted.script = [Response(content, status)]
    with pytest.raises(NoAnswerError, match=message) as error:
        await ask(scripted)
    assert (error.value.status, error.value.gone) == (status, False)
    assert len(scripted.seen) == 1


@pytest.mark.parametrize("reason", ["engine_error", "sandbox_unavailable"])
async def test_an_answer_that_is_not_the_models_alone_is_none(scripted: Scripted, reason: str) -> None:
    facts = {"stop_reason": reason, "detail": "gone", "turns": [{}]}
    scripted.script = [completion("A", thinking_with_images=facts)]
    with pytest.raises(NoAnswerError, match=f"{reason}: gone"):
        await ask(scripted)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
async def test_what_ends_the_command(scripted: Scripted, status: int) -> None:
    scripted.script = [refusal(status, "unauthorized", "a wrong key")]
    with pytest.raises(CommandError, match=f"/v1/chat/completions answers {status}: unauthorized a wrong key"):
        await ask(scripted)


async def test_a_server_that_does_not_answer_in_time(scripted: Scripted) -> None:
    scripted.held = asyncio.Event()
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.2 s") as error:
        await ask(scripted, timeout=0.2)
    assert error.value.status is None


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with client(url, patience=0.1) as asking:
        with pytest.raises(NoAnswerError, match="does not answer: ConnectError") as error:
            await asking.ask(b"{}")
        assert (error.value.status, error.value.gone) == (None, True)
        with pytest.raises(CommandError, match="/v1/models does not answer: ConnectError"):
            await asking.model()


async def test_the_first_model_is_taken(scripted: Scripted) -> None:
    for url in (scripted.url, f"{scripted.url}/", f"{scripted.url}/v1", f"{scripted.url}/v1/"):
        async with client(url) as asking:
            assert await asking.model() == MODEL


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(401, "unauthorized", "a wrong key"), "/v1/models answers 401: unauthorized a wrong key"),
        (JSONResponse({"data": []}), "lists no model; name one with --model"),
        (Response("hello"), "lists no model"),
        (JSONResponse([]), "lists no model"),
    ],
)
async def test_no_model(scripted: Scripted, answer: Response, message: str) -> None:
    scripted.models = answer
    async with client(scripted.url) as asking:
        with pytest.raises(CommandError, match=message):
            await asking.model()


@pytest.mark.parametrize("url", ["", "localhost:10044", "ftp://x/v1", "http://", "http://x:port", "/v1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(CommandError, match="is no URL"):
        client(url)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("3", 3, 3),
        (" 0 ", 0, 0),
        (email.utils.formatdate(time.time() + 3600, usegmt=True), 3000, 3601),
        (email.utils.formatdate(0, usegmt=True), -1e12, 0),
    ],
)
def test_times_of_retry_after(value: str, least: float, most: float) -> None:
    seconds = _retry_after(httpx.Response(503, headers={"Retry-After": value}))
    assert seconds is not None
    assert least <= seconds <= most


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "1.5e400", "Wed, 99 Foo 2026"])
def test_times_of_retry_after_that_are_none(value: str) -> None:
    assert _retry_after(httpx.Response(503, headers={"Retry-After": value})) is None
