"""What is said on the way and at the end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s1vl_cli.evaluation.dataset import Dataset
from s1vl_cli.evaluation.progress import Asking, duration, line
from s1vl_cli.evaluation.report import Report, lines_of, report_of, table_of
from s1vl_cli.evaluation.results import Answered, DatasetFacts, Failed, Header, Results, Settings, Usage
from tests.unit.cli.conftest import question

HEADER = Header(
    dataset=DatasetFacts(name="x[b].tsv", sha256="5" * 64, questions=5),
    settings=Settings(model="m", mode="thinking-with-images", max_tokens=None),
)
QUESTIONS = [question(str(number), category="[red]a" if number < 3 else "b") for number in range(5)]
DATASET = Dataset(Path("x[b].tsv"), "5" * 64, [], QUESTIONS, 2, {})


def answered(index: str, correct: bool, **values: Any) -> Answered:
    usual = {"prediction": "A", "extracted": "A" if correct else "Z", "category": "a", "seconds": 30.0}
    more = {"stop_reason": "answer", "turns": 2, "usage": Usage(prompt_tokens=1000, completion_tokens=100)}
    return Answered(**{"index": index, "correct": correct, **usual, **more, **values})


@pytest.fixture
def report(tmp_path: Path) -> Report:
    with Results(tmp_path / "r.jsonl", HEADER) as results:
        results.add(answered("0", True))
        results.add(answered("1", False, turns=None, usage=None, seconds=60.0, stop_reason="length"))
        results.add(answered("3", True, turns=3, usage=Usage(prompt_tokens=3000, completion_tokens=300)))
        results.add(Failed(index="4", failed="503: busy [x]", status=503, seconds=1))
        return report_of(DATASET, QUESTIONS, results, HEADER)


def test_numbers(report: Report) -> None:
    found = json.loads(json.dumps(report.json()))
    assert found["dataset"]["name"] == "x[b].tsv"
    assert found["settings"]["mode"] == "thinking-with-images"
    assert {name: found[name] for name in ("wanted", "answered", "failed", "not_asked", "no_option")} == {
        "wanted": 5,
        "answered": 3,
        "failed": 1,
        "not_asked": 1,
        "no_option": 1,
    }
    assert found["accuracy"] == 2 / 3
    assert found["without_picture"] == 2
    assert [(score["name"], score["n"], score["correct"]) for score in found["scores"]] == [
        ("Overall", 3, 2),
        ("[red]a", 2, 1),
        ("b", 1, 1),
    ]
    assert found["means"] == {"seconds": 40, "turns": 2.5, "prompt_tokens": 2000, "completion_tokens": 200}
    assert found["stop_reasons"] == {"answer": 2, "length": 1}
    assert found["failures"] == {"503: busy [x]": 1}


def test_the_table(report: Report) -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(table_of(report))
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in out.getvalue().splitlines()]
    assert ["Overall", "3", "2", "66.7"] in rows
    assert ["[red]a", "2", "1", "50.0"] in rows
    assert "x[b].tsv, m, thinking-with-images" in out.getvalue()
    assert lines_of(report) == [
        "3 of 5 answered, 1 failed (run it again to ask them again), 1 not asked, 1 named no option, which counts as "
        "wrong, 2 rows have no picture and were left out",
        "Mean of an answer: 40 s, 2.5 turns, 2,000 tokens of prompts and 200 said",
        "Ended by: answer 2, length 1",
        "Failed 1 times: 503: busy [x]",
    ]


def test_only_what_is_wanted_counts(tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl", HEADER) as results:
        results.add(answered("0", True))
        results.add(answered("4", False))
        report = report_of(DATASET, QUESTIONS[:2], results, HEADER)
    assert (report.wanted, report.answered, report.not_asked, report.accuracy) == (2, 1, 1, 1.0)
    assert [score.name for score in report.scores] == ["Overall", "[red]a"]


def test_a_server_that_says_little(tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl", HEADER) as results:
        results.add(answered("0", True, turns=None, usage=None, stop_reason=""))
        report = report_of(DATASET, QUESTIONS[:1], results, HEADER)
    assert lines_of(report)[1:] == ["Mean of an answer: 30 s", "Ended by: unknown 1"]
    assert report.json()["means"] == {"seconds": 30, "turns": None, "prompt_tokens": None, "completion_tokens": None}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"done": 0}, "0/100"),
        ({"done": 40, "right": 30, "asked": 0}, "40/100, accuracy 75.0 %"),
        (
            {"done": 40, "right": 29, "failed": 1, "asked": 20, "seconds": 60},
            "40/100, 20.0 a minute, 3 min 00 s left, accuracy 74.4 %, 1 failed",
        ),
        ({"done": 100, "right": 50, "asked": 100, "seconds": 600}, "100/100, 10.0 a minute, accuracy 50.0 %"),
        ({"done": 1, "failed": 1, "asked": 1, "seconds": 1}, "1/100, 60.0 a minute, 1 min 39 s left, 1 failed"),
    ],
)
def test_a_line_of_progress(values: dict[str, Any], text: str) -> None:
    usual = {"total": 100, "right": 0, "failed": 0, "asked": 0, "seconds": 0}
    assert line(**{**usual, **values}) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (90000, "25 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with Results(tmp_path / "r.jsonl", HEADER) as results:
        results.add(answered("0", True))
        results.add(answered("7", True))
        with Asking(screen, results, frozenset({"0", "1", "2"})) as told:
            told(answered("1", False))
            told(Failed(index="2", failed="x", status=None, seconds=1))
    text = out.getvalue()
    last = [part for part in text.replace("\r", "\n").splitlines() if "3/3" in part][-1]
    assert "accuracy 50.0 %, 1 failed" in last
    assert ("━" in text) == terminal
    assert ("asking 2 of 3 questions" in text) != terminal
