"""The policy: every answer has to come out of the pixels and the printed text, right or honestly wrong."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from hack.demo import picture
from hack.engine_sim.policy.scenario import ScenarioError, load_scenarios

FIND = "What is the colour of the small mark in this picture?"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.png"
    Image.new("RGB", (320, 240), (120, 120, 120)).save(path)
    return path


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("seed", "colour", "question"),
    [(1, None, FIND), (2, "red", "Please carefully analyze this scientific image."), (3, "yellow", "Find the mark.")],
)
def test_the_mark_is_found_measured_and_named(
    dialogue, tmp_path: Path, seed: int, colour: str | None, question
) -> None:
    path = tmp_path / "micrograph.png"
    truth = picture.write(path, seed, colour)
    talk = dialogue(path)
    assert "</think>\n\n<code>\n```python\n" in talk.ask(question)
    printed, crops = talk.run()
    answer = talk.tool(printed, *crops)
    assert f"<answer>The small mark is {truth.colour}." in answer
    left, top, right, bottom = truth.box
    assert f"({left}, {top}) to ({right}, {bottom})" in " ".join(answer.split())
    assert len(crops) == 1


MEASURED = "picture: 300x300, regions: 1\nmark: bbox=(10, 20, 30, 40) mean_rgb=(20, 160, 50)\ncrop: /x.png"


@pytest.mark.parametrize(
    ("colour", "words"),
    [
        ((20, 160, 50), "The small mark is green. It lies in the upper left of the 300x300 picture"),
        ((200, 20, 20), "they do not agree"),
    ],
)
def test_what_was_drawn_is_compared_with_what_was_printed(dialogue, plain: Path, colour, words: str) -> None:
    talk = dialogue(plain)
    talk.ask(FIND)
    assert words in " ".join(talk.tool(MEASURED, png(colour)).split())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (MEASURED, "By the numbers alone"),
        (
            "picture: 300x300, regions: 0\nmark: none",
            "There is no small, strongly coloured mark in the 300x300 picture",
        ),
        ("ModuleNotFoundError: No module named 'cv2'", "I could not measure the mark"),
        ("", "I could not measure the mark"),
    ],
)
def test_a_result_without_a_picture_is_reported_honestly(dialogue, plain: Path, result: str, words: str) -> None:
    talk = dialogue(plain)
    talk.ask(FIND)
    assert words in " ".join(talk.tool(result).split())


def test_a_picture_without_a_mark_has_none(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    talk.ask(FIND)
    printed, crops = talk.run()
    assert crops == []
    assert "There is no small, strongly coloured mark in the 320x240 picture." in talk.tool(printed)


def test_a_question_without_code_is_answered_from_the_image(dialogue, plain: Path) -> None:
    answer = dialogue(plain).ask("Please describe the physical phenomenon shown in the image.", prompt="")
    assert "<code>" not in answer
    assert "<answer>" not in answer
    assert "320x240 px as I see it and mostly grey" in answer
    assert "Nothing in it is strongly coloured." in answer


def test_the_strongest_colour_is_named(dialogue, tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 300), (120, 120, 120))
    image.paste((200, 20, 20), (10, 250, 40, 280))
    image.save(tmp_path / "marked.png")
    assert "Its strongest colour is red, in the lower left." in dialogue(tmp_path / "marked.png").ask("What is it?")


def test_code_is_only_written_where_the_prompt_allows_it(dialogue, plain: Path) -> None:
    assert "<code>" not in dialogue(plain).ask(FIND, prompt="Answer in one word.")


def test_an_error_is_read_and_fixed(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    talk.ask("Measure this picture, but make a mistake first.")
    printed, _ = talk.run()
    assert "NameError" in printed
    second = talk.tool(printed)
    assert "path_of_the_image" in second.split("</think>")[0]
    printed, _ = talk.run()
    assert "<answer>The picture is 320x240 px with a mean brightness of 120.0 of 255.</answer>" in talk.tool(printed)


def test_looking_goes_on_until_an_answer_is_demanded(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    said = talk.ask("Keep looking forever.")
    codes = set()
    for _ in range(6):
        assert "<code>" in said
        codes.add(talk.code())
        said = talk.tool(talk.run()[0])
    assert len(codes) == 6
    demanded = talk.tool("That was the last turn. No more code can be run. Give your final answer now.")
    assert "after 7 turns, strip 5 had a mean brightness of 120.00" in " ".join(demanded.split())


def test_a_cell_that_does_not_end_is_reported(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    assert "time.sleep(3600)" in talk.ask("Please sleep forever.")
    notice = "[the code was stopped after 30 s and the kernel was restarted]"
    assert notice in talk.tool(f"waiting\n{notice}")


def test_a_sleeping_cell_that_came_back_is_not_called_stopped(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    talk.ask("Please sleep forever.")
    assert "says nothing about a time limit" in talk.tool("done")


def test_slow_talk_takes_longer_for_each_token(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    talk.ask("Describe this slowly.")
    assert talk.last.token_delay == 0.2


def test_a_new_question_starts_anew(dialogue, plain: Path) -> None:
    talk = dialogue(plain)
    talk.ask(FIND)
    talk.tool(MEASURED, png((20, 160, 50)))
    assert "<code>" in talk.ask(FIND)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("match: x\norder: 1\nstates: []", "states"),
        ("match: '('\norder: 1\nstates:\n- {think: a, answer: b}", "not a regular expression"),
        ("match: x\norder: 1\nstates:\n- {think: a, answer: b, code: c}", "either code or answer"),
        ("match: x\norder: 1\nstates:\n- {think: a, answer: b, when: {moon: full}}", "moon"),
        ("just text", "bad.yaml"),
    ],
)
def test_malformed_scenarios_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ScenarioError, match=words):
        load_scenarios(tmp_path)


def test_no_scenarios_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no scenarios"):
        load_scenarios(tmp_path)
