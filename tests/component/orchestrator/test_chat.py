"""Thinking with images through OpenAI's API, with the real `openai` client."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.component.orchestrator.chatting import MODEL, PLAIN, user
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text
from tests.component.orchestrator.fakes import Fail

MARK = "image_1.resize((50, 40)).save(output_dir + '/made.png')\nprint(image_path)"


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


async def test_an_answer_that_was_not_reached(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = [Fail(-1)]
    answer: Any = await client.chat.completions.create(model=MODEL, messages=user(), extra_body={"deadline_seconds": 1})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "length")
    assert answer.thinking_with_images["stop_reason"] == "deadline"


async def test_a_turn_that_breaks_off_while_thinking_is_said_again(world: World, client: AsyncOpenAI) -> None:
    world.engine.script = [Fail(-2), final("red")]
    stream = await client.chat.completions.create(model=MODEL, messages=user(), stream=True)
    deltas: list[Any] = [choice.delta async for chunk in stream for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "red"
    thinking = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert thinking.strip() == "I am thinking\n\nNow I know."
