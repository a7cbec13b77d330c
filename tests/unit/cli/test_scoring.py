"""Accuracies, against sums done by hand."""

from __future__ import annotations

import pytest

from s1vl_cli.evaluation.scoring import Score, overall, scores_of
from tests.unit.cli.conftest import question


def shown(scores: list[Score]) -> list[tuple[str, str, str, int, int, float]]:
    return [(s.part, s.level, s.name, s.n, s.correct, s.accuracy) for s in scores]


def test_categories() -> None:
    questions = [
        question("0", category="where", l2_category="where"),
        question("1", category="a colour"),
        question("2", category="a colour"),
        question("3", category="a colour"),
    ]
    scores = scores_of(questions, {"0": True, "1": True, "2": False, "3": False})
    assert shown(scores) == [
        ("", "Overall", "Overall", 4, 2, 0.5),
        ("", "l2-category", "where", 1, 1, 1.0),
        ("", "category", "a colour", 3, 1, 1 / 3),
        ("", "category", "where", 1, 1, 1.0),
    ]
    assert overall(scores) == 0.5


def test_what_was_not_answered_does_not_count() -> None:
    questions = [question(str(number), category="x" if number < 2 else "y") for number in range(4)]
    scores = scores_of(questions, {"0": True, "1": False})
    assert shown(scores) == [("", "Overall", "Overall", 2, 1, 0.5), ("", "category", "x", 2, 1, 0.5)]
    assert scores_of(questions, {}) == []
    assert overall([]) is None


def test_hrbench_averages_its_cycles() -> None:
    """Ten cycles, so that their order is that of numbers: each has three questions, the n-th is right in n cycles."""
    questions, hits = [], {}
    for cycle in range(10):
        for number, category in enumerate(("single", "single", "cross"), 1):
            index = f"{cycle}-{number}"
            questions.append(question(index, cycle=str(cycle), category=category))
            hits[index] = cycle < number
    scores = scores_of(questions, hits)
    rows = shown(scores)
    assert rows[0][:5] == ("Average", "Overall", "Overall", 30, 6)
    assert rows[1][:5] == ("Average", "category", "cross", 10, 3)
    assert rows[2][:5] == ("Average", "category", "single", 20, 3)
    assert [row[5] for row in rows[:3]] == pytest.approx([0.2, 0.3, 0.15])
    assert overall(scores) == pytest.approx(0.2)
    assert [row[0] for row in rows[3::3]] == [str(cycle) for cycle in range(10)]
    assert rows[3:6] == [
        ("0", "Overall", "Overall", 3, 3, 1.0),
        ("0", "category", "cross", 1, 1, 1.0),
        ("0", "category", "single", 2, 2, 1.0),
    ]
    assert rows[6:9] == [
        ("1", "Overall", "Overall", 3, 2, 2 / 3),
        ("1", "category", "cross", 1, 1, 1.0),
        ("1", "category", "single", 2, 1, 0.5),
    ]


def test_cycles_weigh_the_same_however_many_of_their_questions_were_answered() -> None:
    questions = [question(f"{cycle}{number}", cycle=cycle) for cycle in "ab" for number in range(4)]
    scores = scores_of(questions, {"a0": True, "b0": False, "b1": False, "b2": False})
    assert shown(scores)[0] == ("Average", "Overall", "Overall", 4, 1, 0.5)
    assert overall(scores) == 0.5


def test_circular_evaluation_wants_all_rotations() -> None:
    """MMBench: the rotations of 1 are right, of 2 not all, of 3 not all answered, 4 has none."""
    groups = {"1": "1", "1000001": "1", "2": "2", "1000002": "2", "3": "3", "1000003": "3", "4": ""}
    questions = [question(index, group=group, category=f"c{group or 4}") for index, group in groups.items()]
    hits = {"1": True, "1000001": True, "2": True, "1000002": False, "3": True, "4": False}
    assert shown(scores_of(questions, hits)) == [
        ("", "Overall", "Overall", 3, 1, 1 / 3),
        ("", "category", "c1", 1, 1, 1.0),
        ("", "category", "c2", 1, 0, 0.0),
        ("", "category", "c4", 1, 0, 0.0),
    ]


def test_splits() -> None:
    questions = [question("0", split="dev"), question("1", split="test"), question("2", split="test")]
    scores = scores_of(questions, {"0": False, "1": True, "2": True})
    assert shown(scores) == [("dev", "Overall", "Overall", 1, 0, 0.0), ("test", "Overall", "Overall", 2, 2, 1.0)]
    assert overall(scores) == 2 / 3
