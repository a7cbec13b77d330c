"""Plain reasoning: what goes on to the engine, and what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from s1vl_orchestrator import plain
from s1vl_orchestrator.errors import ErrorCode
from tests.component.orchestrator.chatting import MODEL, PLAIN, check, post, user
from tests.component.orchestrator.conftest import World, data_url, png, text
from tests.component.orchestrator.fakes import Fail


@pytest.mark.parametrize("how", ["field", "suffix", "no image"])
async def test_plain_reasoning_is_passed_on(world: World, client: AsyncOpenAI, how: str) -> None:
    world.engine.script = ["Light is bent.\n</think>\n\n<answer>refraction</answer>"]
    before = world.sandboxes["chem"].opened
    answer: Any = await client.chat.completions.create(
        model=MODEL + (":reasoning" if how == "suffix" else ""),
        messages=user(text()) if how == "no image" else user(),
        max_tokens=16384,
        temperature=0.6,
        response_format={"type": "text"},
        extra_body={"top_k": 20, **(PLAIN if how == "field" else {})},
    )
    message = answer.choices[0].message
    # As the engine said it: tags are not ours here.
    assert message.content.strip() == "<answer>refraction</answer>"
    assert message.reasoning == message.reasoning_content == "Light is bent.\n"
    [sent] = world.engine.requests
    assert sent["model"] == MODEL
    assert (sent["max_tokens"], sent["temperature"], sent["top_k"]) == (16384, 0.6, 20)
    assert sent["cache_salt"]
    assert set(sent) == {
        "model", "messages", "max_tokens", "temperature", "top_k", "response_format", "cache_salt",
    }  # fmt: skip
    assert len(sent["messages"]) == 1
    assert world.sandboxes["chem"].opened == before
    world.assert_clean()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_plain_streams(world: World, client: AsyncOpenAI, field: str) -> None:
    world.engine.field_name = field
    world.engine.script = ["Light is bent.\n</think>\n\nrefraction"]
    reasoning = content = ""
    usage = None
    stream = await client.chat.completions.create(
        model=MODEL, messages=user(), stream=True, stream_options={"include_usage": True}, extra_body=PLAIN
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            delta: Any = choice.delta
            reasoning += getattr(delta, "reasoning_content", None) or ""
            assert getattr(delta, "reasoning", None) == getattr(delta, "reasoning_content", None)
            content += delta.content or ""
    assert (reasoning, content.strip()) == ("Light is bent.\n", "refraction")
    assert usage is not None
    assert usage.prompt_tokens == 1000
    world.assert_clean()


async def test_plain_pictures_keep_their_size_and_are_the_tenants_own(world: World) -> None:
    big = png(size=(3000, 2000))
    seen = []
    for tenant in ("chem", "bio"):
        part = {"type": "image_url", "image_url": {"url": data_url(big)}, "uuid": "guessed"}
        response = await post(world, {**PLAIN, "messages": user(part, text())}, **{"x-api-key": f"key-{tenant}"})
        assert response.status_code == 200, response.text
        sent = world.engine.requests[-1]
        [shown] = [p for p in sent["messages"][0]["content"] if p["type"] == "image_url"]
        assert shown["image_url"]["url"].startswith(f"file://{world.root}/.s1vl/engine/")
        seen.append((sent["cache_salt"], shown["uuid"]))
    (salt, uuid), (other_salt, other_uuid) = seen
    assert salt != other_salt
    assert uuid != other_uuid != "guessed"
    world.assert_clean()


async def test_plain_conversations_with_tools(world: World, client: AsyncOpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Call f."},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    await client.chat.completions.create(model=MODEL, messages=messages, tools=tools, tool_choice="auto")
    sent = world.engine.requests[0]
    assert sent["messages"] == [
        *messages[:2],
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm", "reasoning_content": "hm"},
        messages[3],
    ]
    assert (sent["tools"], sent["tool_choice"]) == (tools, "auto")


async def test_what_the_engine_refuses_of_a_plain_request(world: World) -> None:
    world.engine.script = [Fail(400, "Invalid regex.")]
    error = check(await post(world, PLAIN), ErrorCode.INVALID_REQUEST)
    assert "Invalid regex." in error["message"]


@pytest.mark.parametrize("step", [Fail(503), Fail(429), Fail(500, "cannot schedule new futures after shutdown")])
@pytest.mark.parametrize("stream", [False, True])
async def test_plain_requests_are_tried_again(world: World, step: Fail, stream: bool) -> None:
    world.engine.script = [step, "x</think>red"]
    response = await post(world, {**PLAIN, "stream": stream})
    assert response.status_code == 200
    assert "red" in response.text


async def test_an_error_in_a_plain_stream_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first chunk the status is spent: the error is the last event, and there is no [DONE]."""
    monkeypatch.setattr(plain, "PLAIN_SECONDS", 1.0)
    world.put("x.png", png())
    world.engine.script = [Fail(-1)]
    response = await post(world, {**PLAIN, "stream": True})
    assert response.status_code == 200
    *chunks, last = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert chunks
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    world.assert_clean()
