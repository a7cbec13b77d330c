"""Refusing to start on a node that cannot confine kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox import isolation
from s1vl_sandbox.containment import Isolation
from s1vl_sandbox.containment.policy import isolation as judge


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Kubernetes would look for the reason."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(isolation, "_TERMINATION_LOG", path)
    return path


def on(monkeypatch: pytest.MonkeyPatch, found: Isolation) -> None:
    monkeypatch.setattr(isolation, "probe", lambda: found)


@pytest.mark.parametrize(
    ("found", "lacks"),
    [
        (judge(0, False), "files, signals, syscalls, tcp"),
        (judge(5, True), "signals"),
        (judge(7, False), "syscalls"),
    ],
)
def test_strict_ends_the_program_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, log: Path, capsys: pytest.CaptureFixture[str], found: Isolation, lacks: str
) -> None:
    on(monkeypatch, found)
    with pytest.raises(SystemExit) as end:
        isolation.refuse_without("strict")
    assert end.value.code == 78
    assert f"this node lacks {lacks} (Landlock ABI {found.landlock_abi})\n" in capsys.readouterr().err
    assert lacks in log.read_text()


def test_strict_is_content_where_all_holds(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    on(monkeypatch, judge(6, True))
    assert isolation.refuse_without("strict") == judge(6, True)
    assert log.read_text() == ""


def test_best_effort_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, judge(0, False))
    assert isolation.refuse_without("") == judge(0, False)
