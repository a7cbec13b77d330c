"""The words of a question, the request, and which option an answer names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_cli.evaluation.matching import NONE, option_of
from s1vl_cli.evaluation.questions import prompt_of
from s1vl_cli.evaluation.results import Settings
from s1vl_cli.evaluation.run import request_of
from tests.unit.cli.conftest import question

COLOURS = {"A": "red", "B": "blue", "C": "green", "D": "white"}
PHRASES = {"A": "a red car on the left", "B": "a blue car on the left", "C": "a red bus", "D": "nothing of the kind"}


def test_the_prompt_is_vlmevalkits() -> None:
    assert prompt_of(question("0")) == (
        "Question: What?\nOptions:\nA. red\nB. blue\nC. green\nD. white\n"
        "Please select the correct answer from the options above. \n"
    )
    assert prompt_of(question("0", hint="Look.", options={"A": "x"})) == (
        "Hint: Look.\nQuestion: What?\nOptions:\nA. x\nPlease select the correct answer from the options above. \n"
    )


@pytest.mark.parametrize(
    ("mode", "max_tokens", "more"),
    [
        (None, None, {}),
        ("thinking-with-images", 16, {"thinking_with_images": True, "max_tokens": 16}),
        ("reasoning", None, {"thinking_with_images": False}),
    ],
)
def test_the_request(mode: Any, max_tokens: int | None, more: dict[str, Any]) -> None:
    settings = Settings(model="m", mode=mode, max_tokens=max_tokens)
    body = request_of(question("0"), ["data:1", "data:2"], settings)
    parts = body.pop("messages")[0]["content"]
    assert body == {"model": "m", **more}
    assert [part["image_url"]["url"] for part in parts[:-1]] == ["data:1", "data:2"]
    assert parts[-1] == {"type": "text", "text": prompt_of(question("0"))}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # A letter alone, however it is dressed up.
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("Answer: B", "B"),
        ("\\boxed{B}", "B"),
        ("$\\boxed {B}$", "B"),
        ("B. blue", "B"),
        ("The answer is B.", "B"),
        ("b", NONE),
        ("AB", NONE),
        ("", NONE),
        ("  \n", NONE),
        # Only in the last four words, and only its first place counts.
        ("B one two three", "B"),
        ("B one two three four", NONE),
        ("one two three four B", "B"),
        ("B one two three four B", NONE),
        ("A one two three", "A"),
        # More than one letter, of which none can be told to be the answer.
        ("A or B", NONE),
        ("A, not B", NONE),
        # The phrase, wherever it stands, and the first of them.
        ("The correct answer is **C**, since the leaves are of that colour and A is not.", "C"),
        ("the answer is c because of A and B", "C"),
        ("Answer is A. No, the answer is B.", "A"),
        ("The answer is: B, and not A", NONE),
        ("The answer is E, or A or B", NONE),
        # It takes the letter that a word begins with, as VLMEvalKit does.
        ("The answer is blue, not A or C.", "B"),
        # The text of an option, in an answer that is not much longer than they are.
        ("blue", "B"),
        ("It is Blue.", "B"),
        ("It looks blue, I would say so, really it does.", NONE),
        ("blue or red", NONE),
        ("reddish", "A"),
        ("purple", NONE),
        # Refusals and Z.
        ("Cannot determine the answer", NONE),
        ("I can't process this file. B", NONE),
        ("Z", NONE),
        ("Z, blue", NONE),
    ],
)
def test_what_an_answer_names(answer: str, letter: str) -> None:
    assert option_of(answer, COLOURS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("There is a red bus there.", "C"),
        ("A red car on the left, and a red bus", NONE),
        # "A" begins the sentence: a word of its own, far from the end.
        ("A blue car on the left side of it", "B"),
        ("A red bus", "A"),
        ("I see A BLUE CAR ON THE LEFT", "B"),
    ],
)
def test_what_an_answer_of_phrases_names(answer: str, letter: str) -> None:
    assert option_of(answer, PHRASES) == letter


def test_letters_beyond_d() -> None:
    options = {letter: f"option {letter}{letter}" for letter in "ABCDEF"}
    assert option_of("It is F", options) == "F"
    assert option_of("The answer is E as far as I can tell from here", options) == NONE


@given(st.text(), st.dictionaries(st.sampled_from("ABCDEFGZ"), st.text(min_size=1, max_size=5), min_size=1))
def test_only_options_are_named(answer: str, options: dict[str, str]) -> None:
    assert option_of(answer, options) in {*options, NONE}
