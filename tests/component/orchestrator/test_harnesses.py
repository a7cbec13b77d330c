"""The model card's own snippet, and the requests that evaluation harnesses send."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.component.orchestrator.chatting import MODEL, user
from tests.component.orchestrator.conftest import World, code, data_url, final, image, png, text, until


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
