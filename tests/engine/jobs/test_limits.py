"""What ends a job early: turns, context, pictures, time. There is an answer all the same."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.engine.conftest import REAL
from tests.engine.jobs.conftest import World, code, crop, final, last_text, picture
from tests.engine.jobs.scripted import Exchange, Step

MAKE_FOUR = (
    "from PIL import Image\n"
    "for n in range(4):\n"
    "    Image.new('RGB', {size}, (60 * n, 9, 9)).save(f'{{output_dir}}/made_{{n}}.png')\n"
    "print('7' * {digits})"
)
TOLD_TO_ANSWER = "No more code can be run."


def statuses(world: World) -> list[int]:
    return [exchange.status for exchange in world.proxy.exchanges]


def assert_forced(last: Exchange) -> None:
    """The last turn is told to answer, and nothing stops it."""
    assert TOLD_TO_ANSWER in last_text(last.messages)
    assert "stop" not in last.sent


async def test_the_last_turn_that_is_allowed(world: World) -> None:
    profile = world.profile
    world.proxy.say(code(profile, crop(profile, 1)), final(profile, "red"))
    result = await world.answer(image_path_list=[world.put("x.png", picture(256, 256))], max_turns=1)
    assert (result["stop_reason"], result["answer"]) == ("max_turns", "red")
    assert world.proxy.exchanges[0].sent["stop"]
    assert_forced(world.proxy.exchanges[-1])


@pytest.mark.parametrize(
    ("context", "expected"),
    [pytest.param(32_768, [200, 200], id="known"), pytest.param(65_536, [200, 400, 400, 200], id="told by the engine")],
)
async def test_the_context_is_full(world: World, context: int, expected: list[int]) -> None:
    """Pictures made on the way give way to notes. The engine's context is 32,768; digits are one token each."""
    profile = await world.configure(maxModelLen=context)
    world.proxy.say(code(profile, MAKE_FOUR.format(size=(1280, 1024), digits=3000)), final(profile, "red"))
    path = world.put("x.png", picture())
    result = await world.answer("7" * 25_000, image_path_list=[path])
    assert (result["stop_reason"], result["answer"]) == ("context_full", "red")
    assert statuses(world) == expected
    last = world.proxy.exchanges[-1]
    assert len(last.pictures) < 1 + 4
    assert "[an earlier image is no longer shown: " in "".join(map(str, last.messages))
    assert_forced(last)
    for refused in world.proxy.exchanges[1:-1]:
        assert "context length" in refused.error
        assert len(refused.pictures) == 1 + 4


@pytest.mark.parametrize(
    ("most", "expected", "shown"),
    [pytest.param(15, [200, 200], 15, id="known"), pytest.param(20, [200, 400, 400, 200], 13, id="told by the engine")],
)
async def test_the_sixteenth_picture(world: World, most: int, expected: list[int], shown: int) -> None:
    profile = await world.configure(imagesPerPrompt=most)
    world.proxy.say(code(profile, MAKE_FOUR.format(size=(64, 64), digits=1)), final(profile, "red"))
    paths = []
    for number in range(13):
        out = io.BytesIO()
        Image.new("RGB", (64, 64), (0, 19 * number, 0)).save(out, "PNG")
        paths.append(world.put(f"{number}.png", out.getvalue()))
    result = await world.answer(image_path_list=paths)
    assert (result["stop_reason"], result["answer"]) == ("context_full", "red")
    assert statuses(world) == expected
    last = world.proxy.exchanges[-1]
    assert len(last.pictures) == shown
    assert_forced(last)
    for refused in world.proxy.exchanges[1:-1]:
        assert refused.error == "At most 15 image(s) may be provided in one prompt. (parameter=image)"


async def test_the_time_is_up_while_the_engine_is_slow(world: World) -> None:
    """The turn is broken off and kept as far as it came, and there is time left for an answer."""
    profile = world.profile
    world.proxy.say(Step("I look at it. " * 100, pace=0.5), final(profile, "red"))
    path = world.put("x.png", picture(256, 256))
    result = await world.answer(image_path_list=[path], deadline_seconds=30 if REAL else 6)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "red")
    assert [turn["ended"] for turn in result["turns"]] == ["time", "stop"]
    cut, last = world.proxy.exchanges
    assert cut.finish == ""
    assert cut.reasoning
    assert cut.said.startswith(cut.reasoning)
    assert "I look" in last.messages[-2]["content"]
    assert_forced(last)
