"""What is over a limit or malformed: the status, the words, and what is cut instead."""

from __future__ import annotations

import httpx
import pytest

from tests.engine.conftest import TEXT, error_of

CONTEXT = 32_768
TOO_LONG = (
    "This model's maximum context length is 32768 tokens. However, your prompt contains at least 32769 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=32769)"
)


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_over_the_context_is_refused(engine, stream: bool) -> None:
    error = error_of(engine.chat(TEXT, max_tokens=40000, stream=stream))
    assert error["message"] == (
        "max_tokens=40000 cannot be greater than max_model_len=32768. Please request fewer output tokens. "
        "(parameter=max_tokens, value=40000)"
    )
    assert (error["type"], error["param"]) == ("BadRequestError", "max_tokens")


def test_max_tokens_of_nothing_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, max_tokens=0))
    assert error["message"] == "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"


def test_prompt_and_max_tokens_over_the_context_are_cut(engine) -> None:
    def filler(times: int) -> dict[str, str]:
        return {"type": "text", "text": "1 " * times}

    each = (engine.tokenize(filler(2000))["count"] - engine.tokenize(filler(1000))["count"]) / 1000
    text = filler(int((CONTEXT - 100) / each))
    used = engine.tokenize(text)["count"]
    room = CONTEXT - used
    assert 0 < room < 200
    answer = engine.chat(text, ignore_eos=True, max_tokens=CONTEXT).json()
    assert answer["usage"]["prompt_tokens"] == used
    assert answer["usage"]["completion_tokens"] == room
    assert answer["choices"][0]["finish_reason"] == "length"


def test_too_much_text_is_refused(engine) -> None:
    error = error_of(engine.chat({"type": "text", "text": "1 " * 40000}))
    assert error["message"] == TOO_LONG
    assert (error["type"], error["param"]) == ("BadRequestError", "input_tokens")


def test_too_many_image_tokens_are_refused(engine, image) -> None:
    parts = [image(4096, 4096), image(4096, 4064), image(640, 320)]
    used = engine.chat(TEXT).json()["usage"]["prompt_tokens"] + 16_384 + 16_256 + 200 + 3 * 2
    error = error_of(engine.chat(TEXT, *parts))
    assert error["message"] == f"Input length ({used}) exceeds model's maximum context length (32768)."
    assert error["param"] is None


def test_an_unknown_model_is_not_found(engine) -> None:
    error = error_of(engine.chat(TEXT, model="nope"), 404)
    assert error["message"] == "The model `nope` does not exist. Valid aliases: ScienceOne-AI/S1-VL-32B."
    assert (error["type"], error["param"]) == ("NotFoundError", "model")


def test_an_empty_salt_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, cache_salt=""))
    assert error["message"] == "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)"


def test_no_messages_are_refused(engine) -> None:
    error = error_of(engine.chat(messages=[]))
    assert error["message"] == "Cannot apply chat template to an empty conversation. Provide at least one message."


@pytest.mark.parametrize("content", ["{", "", "[]", '{"model": "ScienceOne-AI/S1-VL-32B"}'])
def test_a_broken_body_is_refused(engine, content: str) -> None:
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{engine.url}/v1/chat/completions", content=content, headers=headers, timeout=30)
    error = error_of(response)
    assert error["type"] == "Bad Request"
    assert error["message"].startswith("1 validation error:\n  {'type': '")
    assert (error["param"] or "").startswith("body")


def test_there_is_no_other_path(engine) -> None:
    assert httpx.get(f"{engine.url}/nope", timeout=30).status_code == 404
    assert httpx.get(f"{engine.url}/v1/chat/completions", timeout=30).status_code == 405
