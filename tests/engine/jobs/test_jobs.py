"""Whole jobs: each protocol's code turns, pictures that come back, answers, and what the engine was sent for them."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_orchestrator.protocol.profile import Profile, built_in_names
from tests.engine.jobs.conftest import World, code, code_in_thinking, crop, final, last_text, picture
from tests.engine.jobs.scripted import Messages, Step


def answer_of(profile: Profile, number: int) -> Any:
    """The last turn: it says the colour that the kernel printed, which no script knows."""

    def say(messages: Messages) -> str:
        found = last_text(messages).partition(f"square {number} has the colour ")[2].split(")")[0]
        return final(profile, f"It is {found}).")

    return say


COLOUR = "It is (0, 20, 62)."
"""Of square 8: x = 0, y = 512."""


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("name", built_in_names())
async def test_a_job(world: World, name: str, how: str) -> None:
    profile = await world.configure(name)
    world.proxy.say(code(profile, crop(profile, 1)), code_in_thinking(profile, crop(profile, 8)), answer_of(profile, 8))
    path = world.put("x.png", picture())
    ask = world.answer if how == "whole" else world.streamed
    result = await ask(image_path_list=[path])
    assert (result["stop_reason"], result["answer"]) == ("answer", COLOUR)
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok", "ok", None]
    assert [image["path"].rsplit("/", 1)[-1] for image in result["images"]] == ["square_1.png", "square_8.png"]
    first, second, third = world.proxy.exchanges
    # The engine said it all to the end and counted it; code while thinking has no content.
    assert [exchange.status for exchange in world.proxy.exchanges] == [200] * 3
    assert [exchange.finish for exchange in world.proxy.exchanges] == ["stop"] * 3
    assert (second.content, second.reasoning) == ("", second.said)
    assert first.reasoning + "</think>" + first.content == first.said
    for turn, exchange in zip(result["turns"], world.proxy.exchanges, strict=True):
        engine = turn["engine"]
        assert (engine["counted_by"], engine["attempts"]) == ("engine", 1)
        assert (engine["prompt_tokens"], engine["completion_tokens"]) == (
            exchange.usage["prompt_tokens"],
            exchange.usage["completion_tokens"],
        )
    # Each picture was sent once, as a file, and then named.
    assert [exchange.sent_whole for exchange in world.proxy.exchanges] == [[True], [False, True], [False, False, True]]
    urls = [part["image_url"]["url"] for part in third.pictures[2:] + second.pictures[1:] + first.pictures]
    assert all(url.startswith(f"file://{world.root}/.s1vl/engine/") for url in urls)
    names = [part["uuid"] for part in third.pictures]
    assert len(set(names)) == 3
    assert [part["uuid"] for part in second.pictures] == names[:2]


async def test_pictures_that_the_engine_does_not_know_are_sent_again(world: World) -> None:
    """As when the pod that saw them was replaced, or had no more room for them."""
    profile = world.profile
    world.proxy.say(
        code(profile, crop(profile, 1)),
        Step(code(profile, crop(profile, 8)), stranger=True),
        answer_of(profile, 8),
    )
    result = await world.answer(image_path_list=[world.put("x.png", picture())])
    assert (result["stop_reason"], result["answer"]) == ("answer", COLOUR)
    assert [exchange.status for exchange in world.proxy.exchanges] == [200, 400, 200, 200]
    refused = world.proxy.exchanges[1]
    assert refused.error == "Cache miss for image at index 0 but data is not provided."
    kinds = [exchange.sent_whole for exchange in world.proxy.exchanges]
    assert kinds == [[True], [False, True], [True, True], [False, False, True]]
    assert [turn["engine"]["attempts"] for turn in result["turns"]] == [1, 1, 1]


async def test_a_picture_of_an_earlier_job_is_not_taken_for_known(world: World) -> None:
    """A job names no picture that it has not sent itself: the engine may have forgotten it between two jobs."""
    profile = world.profile
    path = world.put("x.png", picture())
    for _ in range(2):
        world.proxy.say(final(profile, "red"))
        await world.answer(image_path_list=[path])
        assert world.proxy.exchanges[0].sent_whole == [True]
