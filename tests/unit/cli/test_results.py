"""The file of results: gone on with whatever happened to it, and nobody else's file ever touched."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation.results import Answered, DatasetFacts, Failed, Header, Results, Settings, Usage

HEADER = Header(
    dataset=DatasetFacts(name="x.tsv", sha256="5" * 64, questions=3),
    settings=Settings(model="m", mode=None, max_tokens=None),
)


def answered(index: str, **values: Any) -> Answered:
    usual = {"prediction": "A\n哪", "extracted": "A", "correct": True, "category": "c", "seconds": 1.5}
    more = {"stop_reason": "answer", "turns": 2, "usage": Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)}
    return Answered(**{"index": index, **usual, **more, **values})


def failed(index: str) -> Failed:
    return Failed(index=index, failed="503: busy", status=503, seconds=2)


def filled(path: Path) -> list[Answered | Failed]:
    records = [answered("0"), failed("1"), answered("2", usage=None, turns=None, correct=False)]
    with Results(path, HEADER) as results:
        for record in records:
            results.add(record)
    return records


def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first, second, third = filled(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "s1vl_eval": 1,
        "dataset": {"name": "x.tsv", "sha256": "5" * 64, "questions": 3},
        "settings": {"model": "m", "mode": None, "max_tokens": None},
    }
    assert lines[1]["prediction"] == "A\n哪"
    with Results(path, HEADER) as results:
        assert results.answered == {"0": first, "2": third}
        assert results.failed == {"1": second}
        results.add(answered("1"))
    with Results(path, HEADER) as results:
        assert results.answered.keys() == {"0", "1", "2"}
        assert results.failed == {}


def test_torn_anywhere(tmp_path: Path) -> None:
    """However many bytes of the last write are missing, the lines before it are kept and it can be gone on with."""
    path = tmp_path / "r.jsonl"
    filled(path)
    whole = path.read_bytes()
    ends = [end for end in range(len(whole) + 1) if whole[:end].endswith(b"\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = max(sum(end <= size for end in ends) - 1, 0)
        with Results(path, HEADER) as results:
            assert len(results.answered) + len(results.failed) == kept
            results.add(answered("9"))
        with Results(path, HEADER) as results:
            assert len(results.answered) + len(results.failed) == kept + 1


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            HEADER.model_copy(update={"dataset": DatasetFacts(name="y.tsv", sha256="6" * 64, questions=4)}),
            r"belongs to another data set: x.tsv \(3 questions, sha256 5{12}\), not y.tsv \(4 questions, sha256 6",
        ),
        (
            HEADER.model_copy(update={"settings": Settings(model="n", mode="reasoning", max_tokens=None)}),
            "has other settings: model is m, not n, mode is None, not reasoning. Name another file with --out",
        ),
        (
            HEADER.model_copy(update={"settings": Settings(model="m", mode=None, max_tokens=9)}),
            "has other settings: max_tokens is None, not 9",
        ),
    ],
)
def test_the_results_of_something_else(tmp_path: Path, header: Header, message: str) -> None:
    path = tmp_path / "r.jsonl"
    filled(path)
    before = path.read_bytes()
    with pytest.raises(CommandError, match=message):
        Results(path, header)
    assert path.read_bytes() == before


def test_the_same_data_set_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    filled(path)
    facts = HEADER.dataset.model_copy(update={"name": "renamed.tsv"})
    with Results(path, HEADER.model_copy(update={"dataset": facts})) as results:
        assert len(results.answered) == 2


@pytest.mark.parametrize(
    "content", [b"precious", b"precious\nnotes\n", b"{}\n", b'{"s1vl_eval": 2}\n', b"index\timage\n0\tx\n", b"\n"]
)
def test_what_is_no_file_of_results_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="is not a file of results"):
        Results(path, HEADER)
    assert path.read_bytes() == content


def test_a_line_that_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"index": "1"}\n', *lines[2:]]))
    with pytest.raises(CommandError, match=r"r.jsonl, line 3: this is not a result"):
        Results(path, HEADER)


def test_only_one_run_writes(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Results(path, HEADER), pytest.raises(CommandError, match="is being written by another run"):
        Results(path, HEADER)
    with Results(path, HEADER) as results:
        assert results.answered == {}


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        Results(tmp_path / "none/r.jsonl", HEADER)
    path = tmp_path / "r.jsonl"
    with Results(path, HEADER) as results:

        def full(descriptor: int, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(CommandError, match="cannot be written: No space left on device"):
                results.add(answered("0"))
        assert results.answered == {}


def test_a_write_that_takes_several_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    really = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: really(descriptor, bytes(content)[:7]))
    filled(path)
    with Results(path, HEADER) as results:
        assert len(results.answered) == 2
