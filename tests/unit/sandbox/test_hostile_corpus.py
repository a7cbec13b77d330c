"""The corpus itself, without running it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.hostile.case import ATTEMPTED, DONE, ERROR, LOST, PRELUDE, Case
from tests.hostile.corpus import CASES, TRIALS, trial_id

DOCUMENT = (Path(__file__).parents[3] / "docs/sandbox.md").read_text()


def _documented() -> list[str]:
    rows = [line.split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| ")]
    table = [row[3].strip(" |") for row in rows if len(row) == 4]
    return [name for cell in table for name in cell.split("; ")]


def test_every_case_is_in_the_document_once() -> None:
    names = [case.name for case in CASES]
    assert sorted(name for name in _documented() if name not in ("Cases", "---")) == sorted(names)


def test_names_tell_trials_apart() -> None:
    assert len({trial_id(trial) for trial in TRIALS}) == len(TRIALS)
    assert len(CASES) >= 45


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_can_be_judged(case: Case) -> None:
    ast.parse(PRELUDE + case.code)
    ast.parse(case.then)
    assert DONE not in case.code, "it must be printed, not be quoted in a traceback"
    if case.ends is ATTEMPTED:
        assert "T['done']" in case.code
    if case.ends in (ERROR, LOST):
        assert case.enames
