"""Prompts: `/tokenize`, what the chat template keeps of the history, and the prefix cache."""

from __future__ import annotations

import uuid as uuids
from typing import Any

import httpx
import pytest

from tests.engine.conftest import TEXT

QUESTION = {"role": "user", "content": "Which colour has the mark?"}
THOUGHT = "I have to look at it more closely before I can say anything."
CALL = "<code>\nprint(1)\n</code>"


def test_tokenize_counts_like_chat(engine, image) -> None:
    part = image(300, 200)
    used = engine.chat(TEXT, part).json()["usage"]["prompt_tokens"]
    answer = engine.tokenize(TEXT, part)
    assert set(answer) == {"count", "max_model_len", "tokens", "token_strs"}
    assert (answer["count"], answer["max_model_len"], answer["token_strs"]) == (used, 32768, None)
    assert len(answer["tokens"]) == used
    assert all(token >= 0 for token in answer["tokens"])


def test_tokenize_takes_plain_text(engine) -> None:
    body = {"model": "ScienceOne-AI/S1-VL-32B", "prompt": "one two three"}
    answer = httpx.post(f"{engine.url}/tokenize", json=body, timeout=60).json()
    assert answer["count"] == len(answer["tokens"]) > 0


def assistant(content: str, **fields: str) -> dict[str, str]:
    return {"role": "assistant", "content": content, **fields}


def result(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


WRAPPED = "<tool_response>\n1\n</tool_response>"
INLINE = assistant(f"<think>\n{THOUGHT}\n</think>\n\n{CALL}")


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        pytest.param([INLINE, result("1", "tool")], True, id="a tool's result"),
        pytest.param([INLINE, result(WRAPPED)], True, id="a user's message that is one result"),
        pytest.param([INLINE, result(WRAPPED + "\n")], False, id="a result and a line break"),
        pytest.param([INLINE, result("1")], False, id="another question"),
        pytest.param([assistant(CALL, reasoning=THOUGHT), result("1", "tool")], True, id="reasoning"),
        pytest.param([assistant(CALL, reasoning=THOUGHT), result("1")], False, id="reasoning, another question"),
        pytest.param([assistant(f"{THOUGHT}\n{CALL}"), result("1")], True, id="thinking that was not closed"),
    ],
)
def test_thinking_is_kept_only_before_a_result(engine, history: list[Any], kept: bool) -> None:
    with_thought = engine.tokenize(messages=[QUESTION, *history])["count"]
    shorter = [dict(message) for message in history]
    for message in shorter:
        for name, value in message.items():
            message[name] = value.replace(THOUGHT, "No.")
    assert (with_thought > engine.tokenize(messages=[QUESTION, *shorter])["count"]) == kept


def test_the_older_name_of_reasoning_is_read_but_not_counted_before(engine) -> None:
    """The chat endpoint renames `reasoning_content`, `/tokenize` ignores it."""
    new = [QUESTION, assistant(CALL, reasoning=THOUGHT), result("1", "tool")]
    old = [QUESTION, assistant(CALL, reasoning_content=THOUGHT), result("1", "tool")]
    without = engine.tokenize(messages=[QUESTION, assistant(CALL), result("1", "tool")])["count"]
    used = [engine.chat(messages=messages).json()["usage"]["prompt_tokens"] for messages in (new, old)]
    assert used == [engine.tokenize(messages=new)["count"]] * 2
    assert engine.tokenize(messages=old)["count"] == without < used[0]


def test_the_next_turns_prompt_begins_with_this_turns(engine, image) -> None:
    """With thinking inline, then the result as a tool's."""
    first = [{"role": "user", "content": [TEXT, image(320, 320)]}]
    prompt = engine.tokenize(messages=first)["tokens"]
    result_part = {"role": "tool", "content": [{"type": "text", "text": "1"}, image(32, 32)]}
    longer = engine.tokenize(messages=[*first, INLINE, result_part])["tokens"]
    assert longer[: len(prompt)] == prompt
    assert len(longer) > len(prompt) + 64


@pytest.mark.parametrize("salts", [("a", "a", "b"), (None, None, "b")], ids=["salted", "plain"])
def test_prefixes_are_found_again_only_under_the_same_salt(engine, salts: tuple[str | None, ...]) -> None:
    long = {"type": "text", "text": f"{uuids.uuid4().hex} " + "the same words again and again " * 40}
    used = engine.tokenize(long)["count"]
    hits = []
    for salt in salts:
        before = engine.metric("vllm:prefix_cache_hits_total")
        assert engine.chat(long, **({"cache_salt": salt} if salt else {})).status_code == 200
        hits.append(engine.metric("vllm:prefix_cache_hits_total") - before)
    first, again, other = hits
    assert max(first, other) < 64
    assert used - 2 * 128 <= again < used
