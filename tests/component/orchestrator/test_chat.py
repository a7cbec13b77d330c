"""OpenAI's API with the real `openai` client, and with the request shapes of evaluation harnesses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from s1vl_orchestrator.chat_requests import REFUSED
from s1vl_orchestrator.errors import ErrorCode
from tests.component.orchestrator.conftest import World, code, data_url, final, image, png, results, text, until
from tests.component.orchestrator.fakes import Fail

MODEL = "ScienceOne-AI/S1-VL-32B"
PLAIN: dict[str, Any] = {"thinking_with_images": False}
MARK = "image_1.resize((50, 40)).save(output_dir + '/made.png')\nprint(image_path)"


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="key-chem", base_url=f"{world.url}/v1", max_retries=0) as client:
        yield client


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts) or [image(png()), text()]}]


async def post(world: World, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await world.http.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": user(), **body}, headers=headers
    )


def check(response: httpx.Response, code: ErrorCode) -> dict[str, Any]:
    """OpenAI's form of an error; returns its object."""
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["code"]) == (code.status, code.value), response.text
    assert set(error) == {"message", "type", "param", "code", "details"}
    if code.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error


async def test_the_card_snippet_runs_unchanged(world: World, tmp_path: Path) -> None:
    world.engine.script = ["Light is bent.\n</think>\n\nIt is refraction."]
    (tmp_path / "image.png").write_bytes(png(size=(400, 300)))

    def snippet() -> tuple[str, str]:
        client = OpenAI(api_key="EMPTY", base_url=f"{world.url}/v1")
        with open(tmp_path / "image.png", "rb") as f:  # noqa: PTH123 - the card's own words
            image_data = base64.b64encode(f.read()).decode("utf-8")
        response = client.chat.completions.create(
            model="ScienceOne-AI/S1-VL-32B",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_data}"}},
                        {"type": "text", "text": "Please describe the physical phenomenon shown in the image."},
                    ],
                }
            ],
            temperature=0.6,
            top_p=0.95,
            max_tokens=16384,
        )
        message: Any = response.choices[0].message
        client.close()
        return message.reasoning_content, message.content

    reasoning, content = await asyncio.to_thread(snippet)
    assert reasoning.strip() == "Light is bent."
    assert content == "It is refraction."
    world.assert_clean()


async def test_thinking_with_images(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = [code(MARK), lambda m: final(f"seen {len(results(m))}")]
    answer: Any = await client.chat.completions.create(model=MODEL, messages=user())
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == MODEL
    assert answer.created > 1_700_000_000
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "seen 1", "stop")
    assert choice.message.reasoning == choice.message.reasoning_content
    for part in ("I look.", MARK, "/data/images/.s1vl/jobs/", "Now I know."):
        assert part in choice.message.reasoning
    assert "/mnt/data" not in answer.to_json()
    assert answer.usage.prompt_tokens == 2000
    assert answer.usage.total_tokens == 2000 + answer.usage.completion_tokens
    facts = answer.thinking_with_images
    assert facts["stop_reason"] == "answer"
    assert facts["images"][0]["path"].endswith("/output/made.png")
    world.assert_clean(jobs=1)


async def test_streamed_thinking_with_images(world: World, client: AsyncOpenAI) -> None:
    script = [code(MARK), "Now I know.\n</think>\n\n<answer>a red thing</answer>"]
    world.engine.script = list(script)
    path = world.put("x.png", png())
    messages = user({"type": "image_url", "image_url": {"url": f"file://{path}"}}, text())
    whole: Any = await client.chat.completions.create(model=MODEL, messages=messages)
    world.engine.script = list(script)
    world.engine.piece = 4
    reasoning, contents, finishes, usage = "", [], [], None
    ids = set()
    async for chunk in await client.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        ids.add((chunk.id, chunk.created, chunk.object))
        usage = chunk.usage or usage
        for choice in chunk.choices:
            delta: Any = choice.delta
            reasoning += getattr(delta, "reasoning_content", "")
            assert getattr(delta, "reasoning_content", "") == getattr(delta, "reasoning", "")
            contents.append(delta.content or "")
            finishes.append(choice.finish_reason)
    assert len(ids) == 1
    assert "".join(contents) == whole.choices[0].message.content == "a red thing"
    assert sum(map(bool, contents)) > 1
    assert reasoning == whole.choices[0].message.reasoning
    assert [finish for finish in finishes if finish] == ["stop"] == finishes[-1:]
    assert usage is not None
    assert usage.prompt_tokens == 2000


async def test_a_stream_without_usage_has_none(world: World, client: AsyncOpenAI) -> None:
    for extra in ({}, PLAIN):
        stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True, extra_body=extra)
        assert not [chunk async for chunk in stream if chunk.usage or not chunk.choices]


@pytest.mark.parametrize(
    ("asked", "content", "finish"),
    [
        ({"max_tokens": 16}, "It is red, and red, and red, and red, and red, and red, and red,", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 16}, "It i", "length"),
        ({"max_tokens": 400}, "It is " + "red, and " * 12 + "red", "stop"),
        ({"stop": [", and"]}, "It is red", "stop"),
        ({"stop": "never said"}, "It is " + "red, and " * 12 + "red", "stop"),
    ],
)
async def test_max_tokens_and_stop_bound_the_answer_alone(
    world: World, client: AsyncOpenAI, asked: dict[str, Any], content: str, finish: str
) -> None:
    long = "It is " + "red, and " * 12 + "red"
    for streamed in (False, True):
        world.engine.script = [code("print(1)"), final(long)]
        if streamed:
            stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True, **asked)
            choices = [choice async for chunk in stream for choice in chunk.choices]
            said = "".join(choice.delta.content or "" for choice in choices)
            ended = choices[-1].finish_reason
        else:
            answer = await client.chat.completions.create(model=MODEL, messages=user(), **asked)
            said, ended = str(answer.choices[0].message.content), answer.choices[0].finish_reason
        assert (said[: len(content)], ended) == (content, finish)
        assert len(said) <= len(content) + 1
    assert {request["max_tokens"] for request in world.engine.requests} == {8192}
    assert world.engine.requests[0]["stop"] == ["</code>", "</tool_call>"]


async def test_sampling_and_limits_go_into_the_job(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = [code("print(1)"), final("one")]
    answer: Any = await client.chat.completions.create(
        model=MODEL, messages=user(), temperature=0, seed=7, extra_body={"top_k": 5, "max_turns": 1}
    )
    for request in world.engine.requests:
        assert (request["temperature"], request["seed"], request["top_k"], request["top_p"]) == (0, 7, 5, 0.95)
    assert answer.thinking_with_images["stop_reason"] == "max_turns"
    assert answer.choices[0].message.content == "one"


async def test_roles_of_whole_conversations(world: World, client: AsyncOpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Answer in French."},
        {"role": "user", "content": [image(png("blue")), text("And this?")]},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Sure?"},
    ]
    await client.chat.completions.create(model=MODEL, messages=messages)
    prompt = world.engine.requests[0]["messages"]
    assert [m["role"] for m in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[0]["content"].endswith("Answer in French.")


async def test_pictures_by_path(world: World, client: AsyncOpenAI) -> None:
    path = world.put("a b.png", png("blue", (70, 60)))
    urls = ["file:///data/images/a%20b.png", f"file://localhost{path}", path]
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "high"}} for url in urls]
    world.engine.script = [code("print(image_paths, image_1.size)"), lambda m: final(results(m)[0])]
    answer = await client.chat.completions.create(model=MODEL, messages=user(*parts, text()))
    assert "['/data/images/a b.png'] (70, 60)" in str(answer.choices[0].message.content)


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
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        messages[3],
    ]
    assert (sent["tools"], sent["tool_choice"]) == (tools, "auto")


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


async def test_an_answer_that_was_not_reached(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = [Fail(-1)]
    answer: Any = await client.chat.completions.create(model=MODEL, messages=user(), extra_body={"deadline_seconds": 1})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "length")
    assert answer.thinking_with_images["stop_reason"] == "deadline"


async def test_keys(world: World, client: AsyncOpenAI) -> None:
    empty = client.with_options(api_key="EMPTY")
    assert (await empty.chat.completions.create(model=MODEL, messages=user())).choices
    world.config["anonymousTenant"] = ""
    world.write_config()
    await until(lambda: world.service.snapshot.config.anonymous_tenant == "")  # type: ignore[union-attr]
    with pytest.raises(openai.AuthenticationError):
        await empty.chat.completions.create(model=MODEL, messages=user())
    wrong = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        await wrong.chat.completions.create(model=MODEL, messages=user())
    assert caught.value.code == "unauthorized"
    with pytest.raises(openai.AuthenticationError):
        await wrong.models.list()


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


async def test_models(world: World, client: AsyncOpenAI) -> None:
    page = await client.models.list()
    assert [model.id for model in page.data] == [MODEL, f"{MODEL}:reasoning"]
    one: Any = await client.models.retrieve(MODEL)
    assert (one.id, one.object, one.max_model_len) == (MODEL, "model", 32768)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"
    # VLMEvalKit asks without its key.
    world.config["anonymousTenant"] = ""
    world.write_config()
    await until(lambda: world.service.snapshot.config.anonymous_tenant == "")  # type: ignore[union-attr]
    assert (await world.http.get("/v1/models")).json()["data"][0]["id"] == MODEL


async def test_the_requests_of_vlmevalkit(world: World) -> None:
    """Its name from /v1/models, picture by data URL or file://, a field of its own, and `content` alone read."""
    world.engine.script = [code("print(1)"), final("B")]
    name = (await world.http.get("/v1/models")).json()["data"][0]["id"]
    embedded = {"url": data_url(png(), "image/jpeg"), "max_dynamic_patch": 6}
    local = {"url": f"file://{world.put('v.png', png())}"}
    for picture in (embedded, local):
        world.engine.script = [code("print(1)"), final("B")]
        payload = {
            "model": name,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": picture},
                        {"type": "text", "text": "Question: ...\nOptions:\nA. red\nB. blue\nAnswer with the letter."},
                    ],
                },
            ],
            "max_tokens": 1024,
            "n": 1,
            "temperature": 0.0,
            "dataset": "VStarBench",
        }
        headers = {"Content-Type": "application/json", "Authorization": "Bearer key-chem"}
        response = await world.http.post("/v1/chat/completions", content=json.dumps(payload), headers=headers)
        assert response.json()["choices"][0]["message"]["content"].strip() == "B"


async def test_the_requests_of_lmms_eval(world: World, client: AsyncOpenAI) -> None:
    """`max_tokens: 16` for a model that thinks for thousands, and no temperature."""
    world.engine.script = [
        f"{'long thought ' * 200}<code>\nprint(1)\n</code>",
        final("B. The car is left of the tree."),
    ]
    payload: Any = {
        "messages": user(image(png()), text("Where is the car?\nAnswer with the option's letter directly.")),
        "model": MODEL,
        "max_tokens": 16,
        "temperature": 0,
    }
    answer = await client.chat.completions.create(**payload)
    assert answer.choices[0].message.content == "B. The car is left of the tree."
    assert answer.choices[0].finish_reason == "stop"
    assert all(request["max_tokens"] > 1000 for request in world.engine.requests)
