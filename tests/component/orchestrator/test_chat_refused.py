"""What OpenAI's endpoints refuse, and how they fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from s1vl_orchestrator.chat_requests import REFUSED
from s1vl_orchestrator.errors import ErrorCode
from tests.component.orchestrator.chatting import MODEL, PLAIN, check, post, user
from tests.component.orchestrator.conftest import World, image, png, text, until
from tests.component.orchestrator.fakes import Fail


@pytest.mark.parametrize("mode", [{}, PLAIN])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://169.254.169.254/latest/meta-data", ErrorCode.INVALID_IMAGE),
        ("https://example.org/x.png", ErrorCode.INVALID_IMAGE),
        ("file://example.org/data/images/x.png", ErrorCode.INVALID_IMAGE),
        ("ftp://x", ErrorCode.INVALID_IMAGE),
        ("data:image/png;base64,AAAA", ErrorCode.INVALID_IMAGE),
        ("file:///etc/passwd", ErrorCode.IMAGE_NOT_FOUND),
        ("file:///data/images/../bio/secret.png", ErrorCode.IMAGE_NOT_FOUND),
        ("file:///data/images/%2e%2e/bio/secret.png", ErrorCode.IMAGE_NOT_FOUND),
        ("/data/images/link.png", ErrorCode.IMAGE_NOT_FOUND),
        ("/data/images/absent.png", ErrorCode.IMAGE_NOT_FOUND),
    ],
)
async def test_pictures_that_are_not_ours(world: World, mode: dict[str, Any], url: str, expected: ErrorCode) -> None:
    world.put("secret.png", png(), "bio")
    (world.folder() / "link.png").symlink_to(world.folder("bio") / "secret.png")
    part = {"type": "image_url", "image_url": {"url": url}}
    check(await post(world, {"messages": user(part, text()), **mode}), expected)
    assert not world.engine.requests
    world.assert_clean()


@pytest.mark.parametrize("mode", [{}, PLAIN])
async def test_text_that_utf8_does_not_have(world: World, mode: dict[str, Any]) -> None:
    body = {"model": MODEL, "messages": user(image(png()), text("a \ud800 b")), "user": "\udfff", **mode}
    if mode:
        body["tools"] = [{"type": "function", "function": {"name": "\ud800", "\ud801": 1}}]
    raw = json.dumps(body).encode()
    assert (await world.http.post("/v1/chat/completions", content=raw)).status_code == 200
    assert "a ? b" in json.dumps(world.engine.requests[0])


async def test_nesting_without_end(world: World) -> None:
    raw = b'{"model": "x", "messages": [], "tools": ' + b"[" * 700 + b"]" * 700 + b"}"
    check(await world.http.post("/v1/chat/completions", content=raw), ErrorCode.INVALID_REQUEST)


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("mode", [{}, PLAIN])
async def test_fields_that_reach_too_far(world: World, name: str, mode: dict[str, Any]) -> None:
    error = check(await post(world, {name: {"a": 1}, **mode}), ErrorCode.NOT_SUPPORTED)
    assert error["param"] == name
    assert not world.engine.requests


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
        {"messages": [*user(), {"role": "tool", "content": "42"}]},
    ],
)
async def test_what_only_plain_reasoning_does(world: World, extra: dict[str, Any]) -> None:
    check(await post(world, extra), ErrorCode.NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"model": "gpt-4o"}, ErrorCode.MODEL_NOT_FOUND),
        ({"messages": []}, ErrorCode.INVALID_REQUEST),
        ({"messages": [{"role": "wizard", "content": "x"}]}, ErrorCode.INVALID_REQUEST),
        ({"messages": user({"type": "video_url", "video_url": {"url": "x"}})}, ErrorCode.INVALID_REQUEST),
        ({"messages": user({"image_url": "http://x"}), **PLAIN}, ErrorCode.INVALID_REQUEST),
        ({"messages": user({"type": "image_embeds", "image_embeds": "AAAA"}), **PLAIN}, ErrorCode.INVALID_REQUEST),
        ({"max_tokens": 0}, ErrorCode.INVALID_REQUEST),
        ({"temperature": "hot"}, ErrorCode.INVALID_REQUEST),
        ({"n": 1000, **PLAIN}, ErrorCode.INVALID_REQUEST),
        ({"messages": user(text()), "thinking_with_images": True}, ErrorCode.NO_IMAGE),
        ({"messages": user(*[image(png())] * 16, text())}, ErrorCode.TOO_MANY_IMAGES),
        ({"messages": user(*[image(png())] * 16, text()), **PLAIN}, ErrorCode.TOO_MANY_IMAGES),
        ({"messages": user(image(png()), text("x " * 60_000))}, ErrorCode.PROMPT_TOO_LONG),
        ({"messages": user(text("x" * 400_001))}, ErrorCode.PROMPT_TOO_LONG),
        ({"stop": ["x"] * 17}, ErrorCode.INVALID_REQUEST),
        ({"structured_outputs": {"regex": "x" * 4_200_000}, **PLAIN}, ErrorCode.BODY_TOO_LARGE),
    ],
)
async def test_bad_requests(world: World, extra: dict[str, Any], expected: ErrorCode) -> None:
    for stream in (False, True):
        check(await post(world, {**extra, "stream": stream}), expected)
    assert not world.engine.requests
    world.assert_clean()


ENGINE_ERRORS = [
    (Fail(400, "At most 2 image(s) may be provided in one prompt."), ErrorCode.TOO_MANY_IMAGES),
    (Fail(400, "Input length (40825) exceeds model's maximum context length (32768)."), ErrorCode.PROMPT_TOO_LONG),
    (Fail(500, "boom"), ErrorCode.ENGINE_UNAVAILABLE),
]


@pytest.mark.parametrize("mode", [{}, PLAIN])
@pytest.mark.parametrize(("step", "expected"), ENGINE_ERRORS)
async def test_errors_of_the_engine(world: World, mode: dict[str, Any], step: Fail, expected: ErrorCode) -> None:
    world.engine.script = [step]
    for stream in (False, True):
        check(await post(world, {**mode, "stream": stream}), expected)
    world.assert_clean()


@pytest.mark.parametrize("mode", [{}, PLAIN])
async def test_an_engine_that_breaks_in_the_middle_of_a_stream(
    world: World, client: AsyncOpenAI, mode: dict[str, Any]
) -> None:
    world.engine.script = [Fail(-2)]
    stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True, extra_body=mode)
    with pytest.raises(openai.APIError) as caught:
        _ = [chunk async for chunk in stream]
    assert caught.value.code == "engine_unavailable"
    world.assert_clean()


async def test_an_engine_that_fails_before_any_answer_can_be_asked_again(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = ["thinking <code>\nprint(1)\n</code>", Fail(500, "boom")]
    check(await post(world, {}), ErrorCode.ENGINE_UNAVAILABLE)
    world.engine.script = ["thinking <code>\nprint(1)\n</code>", Fail(500, "boom")]
    stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True)
    finishes = []
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            finishes += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
    assert caught.value.code == "engine_unavailable"
    assert finishes == []


async def test_the_gate_holds_for_images_only(world: World, client: AsyncOpenAI) -> None:
    world.sandboxes["chem"].broken = True
    await until(lambda: not world.service.tenants["chem"].status.consistent, "the gate to close")
    check(await post(world, {}), ErrorCode.SANDBOX_STARTING)
    assert (await client.chat.completions.create(model=MODEL, messages=user(), extra_body=PLAIN)).choices


async def test_queue_and_rate(world: World, client: AsyncOpenAI) -> None:
    limits = world.config["tenants"][0]["limits"]
    limits.update(concurrentRequests=1, queuedRequests=0)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.queued_requests == 0)  # type: ignore[union-attr]
    world.engine.script = [Fail(-1)]
    running = asyncio.create_task(post(world, PLAIN))
    await until(lambda: world.service.tenants["chem"].admission.running)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=MODEL, messages=user())
    assert caught.value.code == "queue_full"
    await until(lambda: world.engine.requests, "the engine to have the request")
    running.cancel()
    await until(lambda: world.service.tenants["chem"].admission.running == 0, "the place to be free")
    await until(lambda: world.engine.aborted, "the engine's request to be aborted")
    await until(lambda: not world.copies(), "the copies to go")


@pytest.mark.parametrize("mode", [{}, PLAIN])
async def test_a_client_that_hangs_up(world: World, client: AsyncOpenAI, mode: dict[str, Any]) -> None:
    world.engine.script = [Fail(-1)]
    stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True, extra_body=mode)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: world.engine.aborted, "the engine's request to be aborted", 5)
    await until(lambda: world.service.active == 0 and not world.copies() and not world.jobs(), "nothing left", 5)
