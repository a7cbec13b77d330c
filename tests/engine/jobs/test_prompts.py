"""What a job's prompts cost the engine: each begins with the one before, so its cache holds; and how near we count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bench.figures import Figure
from s1vl_orchestrator.budget import text_tokens
from s1vl_orchestrator.conversation import Conversation
from s1vl_orchestrator.protocol.profile import Profile, built_in_names
from tests.engine.jobs.conftest import World, code, code_in_thinking, crop, final, picture
from tests.engine.jobs.scripted import Exchange, Messages, Step

QUESTION = "Which of the squares in this figure has the colour that its legend names as the sample's, and where is it?"
THOUGHT = (
    "The figure shows {n} rows of squares whose colours differ only a little, so I cannot tell them apart at the size "
    "at which I see the whole picture. I cut out the next square, print the colour of its middle, and keep the "
    "picture: x = {x}, y = {y} px from the upper left corner, 256 px wide and 256 px high. If it is the one that I "
    "look for, I can answer; if not, I go on with the one after it, row by row, until I have seen all of them."
)
CAPTION = "\n".join(
    f"Panel {letter} shows the same sample after heating for {hours} hours. Each square is one field of the grid, "
    "coloured by the mean of three measurements; the legend on the right gives the scale, and the bar is 20 "
    "micrometres long."
    for hours, letter in enumerate("ABCDEFGHIJKLMNOPQRST", 1)
)
"""Of the figure: what a question about one comes with, some 900 tokens of the real model."""
GOAL = 0.85
"""The part of all prompt tokens after the first turn that the engine should find in its prefix cache."""
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"


def thought(number: int) -> str:
    return THOUGHT.format(n=number + 2, x=256 * (number % 4), y=256 * (number // 4))


def four_turns(profile: Profile, *thoughts: str) -> list[str]:
    """Some 100 tokens of code each, once in the thinking."""
    return [
        code(profile, crop(profile, 1), thoughts[0]),
        code_in_thinking(profile, crop(profile, 2), thoughts[1]),
        code(profile, crop(profile, 3), thoughts[2]),
        final(profile, "The third one.", thoughts[3]),
    ]


@pytest.mark.parametrize("name", built_in_names())
async def test_prompts_only_grow_and_are_not_underestimated(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four turns about one picture of 1 MPx, in which the engine's own counts are kept from the job."""
    add_turn = Conversation.add_turn
    monkeypatch.setattr(Conversation, "add_turn", lambda self, *said, **_: add_turn(self, *said))
    profile = await world.configure(name)
    world.proxy.tokenizing = True
    world.proxy.say(*four_turns(profile, *map(thought, range(1, 5))))
    result = await world.answer(QUESTION, image_path_list=[world.put("x.png", picture())])
    assert (result["stop_reason"], len(result["turns"])) == ("answer", 4), result
    exchanges = world.proxy.exchanges
    assert [exchange.status for exchange in exchanges] == [200] * 4
    for before, after in pairwise(exchanges):
        await assert_grown(world, before, after)
    over = await overestimate(world, exchanges[-1], world.tasks[-1].turns[-1].prompt_estimate)
    with capsys.disabled():
        print(f"\n{Figure(f'engine.{name}.prompt_estimate_to_count', over).line()}")


async def assert_grown(world: World, before: Exchange, after: Exchange) -> None:
    """A prompt begins with exactly the tokens of the one before and of what was said.

    Compared is what the engine's own tokenizer and chat template make of the messages as they were sent: `/tokenize` of
    a turn's messages gives its prompt (as many tokens as the engine counted for the request), and `/tokenize` of the
    text that the model said gives the tokens of a trained model. One with made-up weights spells the same text in other
    pieces, which is why its own tokens are no measure.

    The last token of a turn may differ where the thinking was not closed, and only there: closing it adds a line break,
    which may become one token with the tag before it. It costs nothing: an engine computes a token only when it needs
    the next one, so the last one of an answer was never in its cache.
    """
    for exchange in (before, after):
        assert len(exchange.prompt) == exchange.usage["prompt_tokens"]
    said = (await world.proxy.tokenize(prompt=before.said))["tokens"]
    begun = before.prompt + said[: len(said) - (not before.content)]
    assert after.prompt[: len(begun)] == begun
    assert len(after.prompt) > len(begun)


async def overestimate(world: World, exchange: Exchange, estimate: int) -> float:
    """Our estimate of a prompt over the engine's count of it; what is not text may not be under it.

    Texts are left out of the comparison: the tiny model's vocabulary is a fortieth of the real one's and needs a third
    more tokens for them. How texts are estimated for the real one is in the unit tests of the budget.
    """
    texts = texts_of(exchange.messages)
    theirs = [(await world.proxy.tokenize(prompt=text))["count"] for text in texts]
    counted = exchange.usage["prompt_tokens"]
    rest, our_rest = counted - sum(theirs), estimate - sum(map(text_tokens, texts))
    pictures = 1024 + 2 + 3 * (64 + 2)
    assert pictures < rest <= our_rest <= rest + 8 * len(texts)
    return estimate / counted


def texts_of(messages: Messages) -> list[str]:
    texts = []
    for message in messages:
        content: Any = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return texts


async def test_the_engine_finds_the_prompt_before_in_its_cache(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = world.profile
    exchanges = world.proxy.exchanges
    readings = [await world.proxy.metrics()]

    async def read() -> None:
        """Once the counters have all prompts so far: the engine writes them when it likes."""
        counted = readings[0][QUERIES] + sum(exchange.usage["prompt_tokens"] for exchange in world.proxy.taken)
        while (now := await world.proxy.metrics())[QUERIES] < counted:
            pass
        readings.append(now)

    first, *others = four_turns(profile, *["I cut out the next square and look at its colour."] * 4)
    world.proxy.say(first, *(Step(turn, before=read) for turn in others))
    await world.answer(f"{CAPTION}\n\n{QUESTION}", image_path_list=[world.put("x.png", picture())])
    await read()
    exchanges = world.proxy.exchanges
    prompts = [exchange.usage["prompt_tokens"] for exchange in exchanges]
    asked = [after[QUERIES] - before[QUERIES] for before, after in pairwise(readings)]
    found = [after[HITS] - before[HITS] for before, after in pairwise(readings)]
    assert asked == prompts
    # All whole blocks of the prompt before. What was said is found too if the model spelled it as its tokenizer does,
    # which one with made-up weights does not.
    block = await world.proxy.block_tokens()
    for before, hits, prompt in zip(prompts, found[1:], prompts[1:], strict=False):
        assert before // block * block <= hits < prompt
    rate = Figure("engine.prefix_cache_hit_rate", sum(found[1:]) / sum(asked[1:]), goal=GOAL, better="higher")
    possible = sum(prompt // block * block for prompt in prompts[:-1])
    figures = [rate, Figure("engine.prefix_cache_hits_of_possible", sum(found[1:]) / possible, goal=1, better="higher")]
    turns = world.tasks[-1].turns[1:]
    over = max(turn.prompt_estimate / (turn.said.prompt_tokens or 1) for turn in turns)
    figures.append(Figure("engine.next_prompt_estimate_to_count", over))
    with capsys.disabled():
        print("".join(f"\n{figure.line()}" for figure in figures))
    assert figures[1].ok
    assert rate.ok, (prompts, found)
