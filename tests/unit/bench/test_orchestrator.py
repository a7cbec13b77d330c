"""The scripted job, how its answers are judged, and how a turn's overhead is computed."""

from __future__ import annotations

import base64
import json

import pytest

from bench.jobs import Answered
from bench.orchestrator import turn_overheads
from bench.peers import Faults, Span
from bench.scripted import (
    Asked,
    answer,
    code,
    count_pictures,
    question,
    read_prompt,
    request_body,
    said,
    scan,
    stream_of,
    told,
)
from bench.soak import judge


def prompt(turn: int, *, crops: bool = True) -> bytes:
    messages = [
        {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": question(7, 3, crops=crops)}]}
    ]
    for number in range(1, turn):
        messages.append({"role": "assistant", "content": code(number, crops=crops)})
        messages.append({"role": "tool", "content": [{"type": "text", "text": f"value={100 + number}"}]})
    return json.dumps({"messages": messages}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("turn", "crops", "expected"),
    [
        (1, True, Asked(7, 1, 3, None, True)),
        (2, False, Asked(7, 2, 3, 101, False)),
        (3, True, Asked(7, 3, 3, 102, True)),
    ],
)
def test_a_prompt_is_read(turn: int, crops: bool, expected: Asked) -> None:
    assert read_prompt(prompt(turn, crops=crops)) == expected
    assert count_pictures(prompt(turn)) == 1


def test_the_last_turn_answers_and_the_others_run_code() -> None:
    assert f"<code>\n```python\n{code(2)}\n```\n</code>" in said(Asked(7, 2, 3, 101), 2)[1]
    assert f"<answer>{answer(7, 102, 3)}</answer>" in said(Asked(7, 3, 3, 102), 3)[1]


@pytest.mark.parametrize("crops", [True, False])
def test_code_is_python(crops: bool) -> None:
    compile(code(1, crops=crops), "code", "exec")


def test_a_stream_says_the_whole_text() -> None:
    events = [line[6:] for line in stream_of("thinking so", "an answer").decode().split("\n\n") if line]
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    assert "".join(choice["delta"].get("reasoning", "") for choice in choices) == "thinking so"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "an answer"
    assert choices[-1]["finish_reason"] == "stop"


def test_a_request_is_json_with_the_picture_in_it() -> None:
    body = json.loads(request_body(1, 2, base64.b64encode(b"picture"), "/data/images/a.jpg"))
    assert base64.b64decode(body["messages"][1]["image_url"]["url"].split(",")[1]) == b"picture"
    assert body["image_path_list"] == ["/data/images/a.jpg"]


def test_a_scan_has_the_size_that_is_asked_for() -> None:
    assert len(scan(64, 48, 20_000)) == 20_000
    with pytest.raises(ValueError, match="64x48"):
        scan(64, 48, 10)


def test_a_turn_lasts_until_the_engine_has_the_next_request() -> None:
    spans = [Span("engine", 2, 5), Span("sandbox", 6, 7), Span("engine", 9, 10)]
    # 0 to 9 without 3 of the engine and 1 of the sandbox, then 9 to 12 without 1 of the engine.
    assert turn_overheads(0, 12, spans) == [5, 2]
    with pytest.raises(ValueError, match="no request"):
        turn_overheads(0, 1, [])


def _answered(status: int, body: object) -> Answered:
    return Answered(status, json.dumps(body).encode(), 0, 1)


def _said(text: str, reason: str = "answer") -> dict[str, object]:
    return {"stop_reason": reason, "messages": [{"role": "assistant", "content": text}]}


@pytest.mark.parametrize(
    ("status", "body", "end", "problem"),
    [
        (200, _said(answer(5, 99, 3)), "answer", ""),
        (200, _said(answer(5, None, 1)), "answer", ""),
        (200, _said(answer(6, 99, 3)), "answer", "answered"),
        (200, _said(answer(5, 98, 3)), "answer", "answered"),
        (200, _said("", "deadline"), "deadline", ""),
        (503, {"error": {"code": "engine_unavailable"}}, "engine_unavailable", ""),
        (500, {"error": {"code": "engine_unavailable"}}, "engine_unavailable", "came with HTTP 500"),
        (500, {"error": {"code": "oops"}}, "unreadable", "oops"),
        (200, [], "unreadable", "HTTP 200"),
    ],
)
def test_answers_are_judged(status: int, body: object, end: str, problem: str) -> None:
    got = judge(_answered(status, body), 5, 99, 3)
    assert got[0] == end
    assert problem in got[1]
    assert bool(problem) == bool(got[1])


def test_the_answer_is_the_last_of_the_assistant() -> None:
    roles = [("assistant", "a"), ("user", "b"), ("assistant", "c")]
    assert told({"messages": [{"role": role, "content": content} for role, content in roles]}) == "c"


def test_faults_come_at_their_rate_and_the_same_every_time() -> None:
    first, second = Faults(0.1), Faults(0.1)
    drawn = [first.pick(("a", "b")) for _ in range(2000)]
    assert drawn == [second.pick(("a", "b")) for _ in range(2000)]
    assert 150 < first.count.total() < 250
    assert not any(Faults(0).pick(("a",)) for _ in range(100))
