"""Whole jobs between the engine simulator, which answers and refuses as vLLM does, and a sandbox that runs code."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from PIL import Image, ImageDraw

from hack.ports import free_port
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until
from tests.component.orchestrator.test_stream import all_events, joined

MODEL = "ScienceOne-AI/S1-VL-32B"
VLLM = Path(__file__).resolve().parents[3] / "hack/engine_sim/bin/vllm"
QUESTION = "Please carefully analyze this scientific image."


@pytest.fixture
async def simulator(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The simulator in place of the scripted engine; yields a client of it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, VLLM, "serve", MODEL, "--port", str(port), "--host", "127.0.0.1", "--max-model-len", "32768",
        "--limit-mm-per-prompt", '{"image":15,"video":0}', "--reasoning-parser", "deepseek_r1",
        "--allowed-local-media-path", str(world.root), "--enable-prefix-caching", "--enable-prompt-tokens-details",
    )  # fmt: skip
    try:
        world.config["engine"]["url"] = url
        world.write_config()
        await until(lambda: world.service.snapshot.config.engine.url == url)  # type: ignore[union-attr]
        await asyncio.wait_for(asyncio.to_thread(_wait_for_port, port), 60)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


def _wait_for_port(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return


async def requests_of(simulator: httpx.AsyncClient) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = (await simulator.get("/sim/requests", params={"limit": 100})).json()
    return seen


def marked_picture() -> bytes:
    import io

    picture = Image.new("RGB", (1600, 1200), "white")
    ImageDraw.Draw(picture).rectangle((1200, 800, 1230, 830), fill="red")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


async def test_a_job_streamed_and_not(world: World, simulator: httpx.AsyncClient) -> None:
    path = world.put("x.png", marked_picture())
    whole = await world.answer(text(QUESTION), paths=[path])
    events = await all_events(world, text(QUESTION), image_path_list=[path], stream=True)
    assert whole["stop_reason"] == "answer"
    assert "red" in whole["answer"]
    assert joined(events, "answer.delta") == events[-1][1]["answer"] == whole["answer"]
    seen = await requests_of(simulator)
    for number, result in enumerate((whole, events[-1][1])):
        mine = seen[number * len(seen) // 2 : (number + 1) * len(seen) // 2]
        assert len(mine) == len(result["turns"]) >= 2
        assert result["usage"]["prompt_tokens"] == sum(request["prompt_tokens"] for request in mine)
        assert result["usage"]["completion_tokens"] == sum(request["completion_tokens"] for request in mine)
        assert all(turn["engine"]["counted_by"] == "engine" for turn in result["turns"])
        # Each picture once, then by name.
        kinds = [[picture["kind"] for picture in request["images"]] for request in mine]
        assert kinds[0] == ["file"]
        assert all(known == "uuid" for later in kinds[1:] for known in later[:1])
    # The engine was never left open, and stopped by itself at the end of code.
    assert all(request["finish_reason"] == "stop" for request in seen)


async def test_plain_reasoning(world: World, simulator: httpx.AsyncClient) -> None:
    async with AsyncOpenAI(api_key="key-chem", base_url=f"{world.url}/v1", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": [image(png("blue")), text("Describe it.")]}]
        plain = {"thinking_with_images": False}
        answer: Any = await client.chat.completions.create(model=MODEL, messages=messages, extra_body=plain)
        stream = await client.chat.completions.create(model=MODEL, messages=messages, extra_body=plain, stream=True)
        deltas = [choice.delta async for chunk in stream for choice in chunk.choices]
    message = answer.choices[0].message
    assert message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == message.reasoning_content
    seen = await requests_of(simulator)
    assert [request["status"] for request in seen] == [200, 200]
    assert len({request["cache_salt"] for request in seen}) == 1
    world.assert_clean()


async def test_a_connection_that_is_cut(world: World, simulator: httpx.AsyncClient) -> None:
    """The turn is asked for again; those who saw its beginning are told that it begins anew."""
    await simulator.put("/sim/faults", json={"drop_after_tokens": 3, "next_texts": [final("red")] * 2})
    result = await world.answer(text(), image(png()))
    assert (result["answer"], result["turns"][0]["engine"]["attempts"]) == ("red", 2)
    await simulator.put("/sim/faults", json={"drop_after_tokens": 3, "next_texts": [final("red")] * 2})
    events = await all_events(world, text(), image(png()), stream=True)
    assert [data for name, data in events if name == "turn.start"] == [{"turn": 1}, {"turn": 1, "restart": True}]
    assert events[-1][1]["answer"] == "red"


async def test_a_client_that_hangs_up_frees_the_engine(world: World, simulator: httpx.AsyncClient) -> None:
    await simulator.put("/sim/faults", json={"token_delay_ms": 50, "next_texts": [code("print(1)") * 20]})
    body = {"messages": [text(), image(png())], "stream": True}
    async with world.http.stream("POST", "/process", json=body) as response:
        async for line in response.aiter_lines():
            if "reasoning.delta" in line:
                break

    async def aborted() -> bool:
        return (await requests_of(simulator))[-1]["finish_reason"] == "abort"

    for _ in range(100):
        if await aborted():
            break
        await asyncio.sleep(0.05)
    assert await aborted()
    world.assert_clean()
