"""Measuring folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox.folders import Usage, measure


def last(folder: Path, step: int = 1000) -> Usage:
    *_, usage = measure(folder, step)
    return usage


def test_what_is_on_disk_counts_and_not_what_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "data").write_bytes(b"x" * 100_000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    usage = last(tmp_path)
    assert usage.entries == 4
    assert 100_000 <= usage.disk_bytes < 200_000


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "away").symlink_to("/usr")
    assert last(tmp_path).entries == 2


def test_it_pauses(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / str(number)).touch()
    assert [usage.entries for usage in measure(tmp_path, 10)] == [10, 20, 25]


def test_a_folder_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert last(tmp_path / "none") == Usage()


def test_folders_too_deep_to_look_at_count_as_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(30):
        Path("d" * 200).mkdir()
        monkeypatch.chdir("d" * 200)
    assert last(tmp_path).entries > 10**9
