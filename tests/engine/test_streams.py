"""Streams: the shape of their chunks, usage, stop strings, and clients that leave."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hack.vllm import scripted
from tests.engine.conftest import TEXT, TIMEOUT, error_of, joined
from tests.engine.test_answers import CODE, SCRIPT

USAGE = {"include_usage": True}
STOP = {"stop": ["</code>"], "include_stop_str_in_output": True}


def script(text: str = SCRIPT) -> dict[str, Any]:
    return {**scripted(text), "max_tokens": 400}


def test_a_stream_has_vllms_chunks(engine) -> None:
    first, *middle, last, usage = engine.stream(TEXT, **script(), **STOP, stream_options=USAGE)
    assert {"id", "object", "created", "model", "choices"} <= set(first)
    assert {chunk["object"] for chunk in [first, *middle, last, usage]} == {"chat.completion.chunk"}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) in ({"reasoning"}, {"content"}) for chunk in middle)
    assert len(middle) > 5
    assert not any(chunk["choices"][0]["finish_reason"] for chunk in [first, *middle])
    assert joined([*middle, last], "reasoning") == "look closer"
    assert joined([*middle, last], "content") == CODE
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("stop", "</code>")
    assert usage["choices"] == []
    counted = usage["usage"]
    assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]
    assert not any(chunk.get("usage") for chunk in [first, *middle, last])


def test_a_stream_says_what_a_whole_answer_says(engine, image) -> None:
    part = image(128, 96)
    whole = engine.chat(TEXT, part, **script(), **STOP).json()
    chunks = engine.stream(TEXT, part, **script(), **STOP, stream_options=USAGE)
    assert joined(chunks, "reasoning") == whole["choices"][0]["message"]["reasoning"]
    assert joined(chunks, "content") == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def test_thinking_that_is_not_closed_is_streamed_as_reasoning(engine) -> None:
    text = "look\n<code>\nprint(1)\n</code>"
    chunks = engine.stream(TEXT, **script(text), **STOP)
    assert (joined(chunks, "reasoning"), joined(chunks, "content")) == (text, "")


def test_a_stream_counts_while_it_is_said(engine) -> None:
    chunks = engine.stream(TEXT, **script(), stream_options={**USAGE, "continuous_usage_stats": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2] > 2
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {chunks[-1]["usage"]["prompt_tokens"]}


def test_it_does_not_count_where_only_that_is_asked(engine) -> None:
    chunks = engine.stream(TEXT, **script(), stream_options={"continuous_usage_stats": True})
    assert not any(chunk.get("usage") for chunk in chunks)


def test_a_stream_without_its_stop_string_loses_text_at_the_end_of_thinking(engine) -> None:
    """Why the orchestrator asks for the stop string: see `test_a_stream_has_vllms_chunks`."""
    chunks = engine.stream(TEXT, **script("hello world</think>\n<code>\nprint(1)\n</code>"), stop=["</code>"])
    assert joined(chunks, "reasoning") != "hello world"


def test_reasoning_can_be_left_out_of_a_stream(engine) -> None:
    chunks = engine.stream(TEXT, **script(), include_reasoning=False)
    assert (joined(chunks, "reasoning"), joined(chunks, "content")) == ("", CODE)


def test_a_refusal_is_no_stream(engine) -> None:
    assert error_of(engine.chat(TEXT, max_tokens=40000, stream=True))["param"] == "max_tokens"


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_whose_client_leaves_is_aborted(engine, until, stream: bool) -> None:
    def running() -> float:
        return engine.metric("vllm:num_requests_running")

    def counted() -> float:
        return sum(value for _, value in engine.series("vllm:request_success_total"))

    until(lambda: running() == 0, "nothing runs")
    before = counted()
    # The simulator speaks slowly when it is asked to; the real one takes a minute for so much anyhow.
    slowly = {"type": "text", "text": "Describe this slowly."}
    body = engine.body(slowly, stream=stream, ignore_eos=True) | {"max_tokens": 20_000}
    if stream:
        with httpx.stream("POST", f"{engine.url}/v1/chat/completions", json=body, timeout=TIMEOUT) as response:
            lines = response.iter_lines()
            assert next(lines)
            until(lambda: running() == 1, "the request runs")
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(TIMEOUT, read=3))
    until(lambda: running() == 0, "the request is gone")
    assert counted() == before
