"""What a job tells of its answer: pieces that make it, wherever it turns out to be another one."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from s1vl_orchestrator.events import Event, EventName
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.protocol.stream import Answering, Thinking
from s1vl_orchestrator.telling import Teller

PATHS = TenantPaths(PurePosixPath("/data/images"), PurePosixPath("/mnt/data/images"), Path("/volume"), "chem", "")


@pytest.mark.parametrize(
    ("turns", "answer", "deltas"),
    [
        ([[Answering("re"), Answering("d")]], "red", [("re", False), ("d", False)]),
        ([[]], "red", [("red", False)]),
        ([[Answering("re")]], "red", [("re", False), ("d", False)]),
        ([[Answering("a"), Answering("b", restart=True)]], "b", [("a", False), ("b", True)]),
        ([[Answering("a"), Answering("", restart=True)], []], "b", [("a", False), ("", True), ("b", False)]),
        ([[Answering("ha")], [Answering("a"), Answering("ll")]], "all", [("ha", False), ("a", True), ("ll", False)]),
        ([[Answering("half")], []], "another", [("half", False), ("another", True)]),
        ([[Answering("half")]], None, [("half", False), ("", True)]),
        ([[]], None, []),
        (
            [[Answering("see /mnt/data/im"), Answering("ages/a.png")]],
            "see /data/images/a.png",
            [("see ", False), ("/data/images/a.png", False)],
        ),
        ([[Answering("at /mnt"), Answering("none", restart=True)]], "none", [("at ", False), ("none", True)]),
    ],
)  # fmt: skip
def test_answers(turns: list[list[Any]], answer: str | None, deltas: list[tuple[str, bool]]) -> None:
    events: list[Event] = []
    teller = Teller(events.append, PATHS)
    for turn in turns:
        teller.next_turn()
        teller.hear([])
        for event in turn:
            teller.hear([event])
        teller.end_turn()
    teller.done({"answer": answer})
    told = [event.data for event in events if event.name is EventName.ANSWER_DELTA]
    assert [(data["text"], data.get("restart", False)) for data in told] == deltas
    assert [event.name for event in events].count(EventName.TURN_START) == len(turns)
    assert events[-1] == Event(EventName.DONE, {"answer": answer})


def test_thinking_ends_before_the_answer_begins() -> None:
    events: list[Event] = []
    teller = Teller(events.append, PATHS)
    teller.next_turn()
    teller.hear([Thinking("look at /mnt"), Answering("red")])
    assert [event.data.get("text") for event in events] == [None, "look at ", "/mnt", "red"]


def test_a_turn_that_breaks_off_begins_anew_until_it_answers() -> None:
    events: list[Event] = []
    teller = Teller(events.append, PATHS)
    teller.next_turn()
    assert teller.take_back()  # Nothing was told yet.
    teller.next_turn()
    teller.hear([])
    teller.hear([Thinking("look at /mnt")])
    assert teller.take_back()
    teller.hear([])
    teller.hear([Thinking("again")])
    assert teller.take_back()
    assert not teller.take_back()
    teller.next_turn()
    teller.hear([])
    teller.hear([Answering("red")])
    assert not teller.take_back()
    assert [event.data for event in events] == [
        {"turn": 2},
        {"turn": 2, "text": "look at "},
        {"turn": 2, "restart": True},
        {"turn": 2, "text": "again"},
        {"turn": 3},
        {"turn": 3, "text": "red"},
    ]
