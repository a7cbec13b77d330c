"""Removing what hostile code has left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s1vl_sandbox.removal import remove_tree


def _deep(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for level in range(3000):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=inner))
        os.close(here)
        here = inner
        if level % 1000 == 999:
            os.mkdir("beside", dir_fd=here)
    os.close(here)


def _locked(folder: Path) -> None:
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/file").touch()
    for path in ("a/b/c", "a/b", "a"):
        (folder / path).chmod(0)
    folder.chmod(0)


def _odd(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "-rf").touch()
    (folder / "nowhere").symlink_to("/nonexistent")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).mkdir()


@pytest.mark.parametrize("fill", [_deep, _locked, _odd, lambda folder: None])
def test_nothing_is_left(tmp_path: Path, fill: object) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert callable(fill)
    fill(folder)
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/link").symlink_to(kept)
    (folder / "link").symlink_to(kept / "file")
    remove_tree(folder)
    folder.symlink_to(kept)
    remove_tree(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "mine"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    assert not (tmp_path / "none").exists()
