"""Whole answers: their fields, thinking and content, stop strings, and what scripts them."""

from __future__ import annotations

import httpx
import pytest

from hack.vllm import scripted
from tests.engine.conftest import TEXT, error_of

CODE = "\n<code>\n```python\nprint(1)\n```\n</code>"
END_OF_TEXT = 4076
SCRIPT = f"look closer</think>{CODE}"


def test_an_answer_has_vllms_fields(engine, image) -> None:
    answer = engine.chat(TEXT, image(), **scripted(SCRIPT), max_tokens=400).json()
    assert {"id", "object", "created", "model", "choices", "usage"} <= set(answer)
    assert answer["object"] == "chat.completion"
    choice = answer["choices"][0]
    message = choice["message"]
    assert {"role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"} <= set(message)
    assert not {"reasoning_content", "tool_calls"} & set(message)
    assert (message["role"], message["reasoning"], message["content"]) == ("assistant", "look closer", CODE)
    # The model may end with either of its two tokens for that; the number of the lesser one is shown.
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] in (None, END_OF_TEXT)
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] is None
    assert "reasoning_tokens" in usage["completion_tokens_details"]


def test_content_is_null_while_thinking_is_open(engine) -> None:
    text = "look\n<code>\nprint(1)\n</code>"
    message = engine.chat(TEXT, **scripted(text), max_tokens=400).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (text, None)


def test_content_is_null_when_nothing_follows_the_thinking(engine) -> None:
    message = engine.chat(TEXT, **scripted("look</think>"), max_tokens=400).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("look", None)


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\\n\"quoted\" 'single' {json} [list]", "Füße, 山水画, 😀, a\u0301 and \u00e1", "x" * 300,
        " spaces  at both ends ",
    ],
    ids=["marks", "letters", "long", "spaces"],
)  # fmt: skip
def test_any_text_can_be_scripted(engine, text: str) -> None:
    message = engine.chat(TEXT, **scripted(f"so</think>{text}"), max_tokens=2000).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("so", text)


def test_without_a_bias_a_whole_answer_is_the_same(engine) -> None:
    constraint = {"structured_outputs": {"choice": [SCRIPT]}}
    message = engine.chat(TEXT, **constraint, max_tokens=400).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("look closer", CODE)


def test_two_kinds_of_constraint_are_refused(engine) -> None:
    error_of(engine.chat(TEXT, structured_outputs={"choice": ["a"], "regex": "a"}))


def test_reasoning_can_be_left_out(engine) -> None:
    fields = {**scripted(SCRIPT), "max_tokens": 400, "include_reasoning": False}
    message = engine.chat(TEXT, **fields).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (None, CODE)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        (SCRIPT, "look closer", CODE),
        ("look\n<code>\nprint(1)\n</code> and more</think>Yes.", "look\n<code>\nprint(1)\n</code>", None),
    ],
    ids=["in the content", "in the thinking"],
)
@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_ends_at_a_stop_string(engine, text: str, reasoning: str, content: str | None, kept: bool) -> None:
    fields = {**scripted(text), "stop": ["</code>", "</answer>"], "include_stop_str_in_output": kept}
    choice = engine.chat(TEXT, **fields, max_tokens=400).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "</code>")
    end = "" if kept else "</code>"
    said = choice["message"]["reasoning"], choice["message"]["content"]
    assert said == ((reasoning, content.removesuffix(end)) if content else (reasoning.removesuffix(end), None))


def test_an_answer_ends_at_its_limit(engine) -> None:
    answer = engine.chat(TEXT, **scripted("one two three four five six seven eight nine"), max_tokens=3).json()
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    assert answer["usage"]["completion_tokens"] == 3


def test_max_completion_tokens_counts_as_max_tokens(engine) -> None:
    fields = {**scripted("one two three four five six seven"), "max_tokens": None, "max_completion_tokens": 2}
    answer = engine.chat(TEXT, **fields).json()
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (2, "length")


@pytest.mark.parametrize("field", ["no_such_field", "guided_choice"])
def test_an_unknown_field_is_ignored(engine, field: str) -> None:
    assert engine.chat(TEXT, **{field: ["a"]}).status_code == 200


def test_the_model_may_be_left_out(engine) -> None:
    assert engine.chat(TEXT, model=None).json()["model"] == "ScienceOne-AI/S1-VL-32B"


def test_models_and_version(engine) -> None:
    models = httpx.get(f"{engine.url}/v1/models", timeout=30).json()
    card = models["data"][0]
    assert models["object"] == "list"
    assert (card["id"], card["max_model_len"], card["owned_by"]) == ("ScienceOne-AI/S1-VL-32B", 32768, "vllm")
    assert httpx.get(f"{engine.url}/load", timeout=30).json() == {"server_load": 0}
    assert httpx.get(f"{engine.url}/version", timeout=30).json() == {"version": "0.32.0"}


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_is_empty(engine, path: str) -> None:
    response = httpx.get(engine.url + path, timeout=30)
    assert (response.status_code, response.content) == (200, b"")
    assert "content-type" not in response.headers
