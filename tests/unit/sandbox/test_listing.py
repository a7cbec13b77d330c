"""Listings of folders that hostile code has filled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_sandbox.api.folders import shown
from s1vl_sandbox.files import FileRefusedError, Files, Root
from s1vl_sandbox.listing import MAX_DEPTH, Scan, matches


def scan(root: Path, path: str = "", *, depth: int = 9, hidden: bool = True, limit: int = 100) -> tuple[set[str], bool]:
    found = Scan(Files([Root(root)]), f"{root}/{path}", depth=depth, hidden=hidden, limit=limit)
    return {"/".join(entry.parts) for entry in found.entries}, found.truncated


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_links_are_shown_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").touch()
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    assert scan(root) == ({"folder", "folder/file", "out", "loop"}, False)
    with pytest.raises(FileRefusedError, match="a symbolic link"):
        scan(root, "out")
    with pytest.raises(FileRefusedError):
        scan(root, "..")
    with pytest.raises(FileRefusedError):
        scan(root, "folder/file")


def test_depth_hidden_and_limit(tmp_path: Path) -> None:
    (tmp_path / "a" / ".b").mkdir(parents=True)
    (tmp_path / "a" / ".b" / "c").touch()
    assert scan(tmp_path, depth=1) == ({"a"}, False)
    assert scan(tmp_path, depth=2) == ({"a", "a/.b"}, False)
    assert scan(tmp_path, hidden=False) == ({"a"}, False)
    assert scan(tmp_path, limit=2) == ({"a", "a/.b"}, True)
    assert scan(tmp_path, limit=3) == ({"a", "a/.b", "a/.b/c"}, False)


def test_a_tree_deeper_than_any_is_cut(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(MAX_DEPTH + 100):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(before)
    opened = open_descriptors()
    found, truncated = scan(tmp_path, depth=10_000, limit=1000)
    assert len(found) == MAX_DEPTH
    assert truncated
    assert open_descriptors() == opened


def test_times_and_names_that_json_cannot_carry(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).touch()
    (tmp_path / "late").touch()
    os.utime(tmp_path / "late", ns=(0, 2**62))
    found = Scan(Files([Root(tmp_path)]), str(tmp_path), depth=1, hidden=True, limit=10)
    by_name = {shown(entry.name): entry for entry in found.entries}
    assert set(by_name) == {"\ufffd\ufffd.png", "late"}
    for entry in found.entries:
        assert entry.modified is None or "T" in entry.modified
        shown(entry.path).encode()


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a.png", "*.png", True),
        ("a/b.png", "*.png", False),
        ("a/b.png", "*/*.png", True),
        ("b.png", "**/*.png", True),
        ("a/b/c.png", "**/*.png", True),
        ("a/b/c.png", "a/**", True),
        ("a", "a/**", True),
        ("b/a", "a/**", False),
        ("a/x/y/b", "a/**/b", True),
        ("a/b", "a/**/b", True),
        ("a/b", "**/**/b", True),
        ("a.png", "[ab].p?g", True),
        ("c.png", "[!c].png", False),
        ("[", "[", True),
        ("a", "[z-a]", False),
        ("A", "a", False),
    ],
)
def test_globs(path: str, pattern: str, expected: bool) -> None:
    assert matches(path.split("/"), pattern.split("/")) is expected


def test_no_pattern_takes_for_ever() -> None:
    assert not matches(["a"] * 60, ["**", "*a*"] * 30 + ["b"])
    assert not matches(["a" * 255], ["*a" * 100 + "b"])


@given(
    path=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5),
    pattern=st.text("ab*?[]!-", max_size=12),
)
def test_any_pattern_can_be_asked(path: list[str], pattern: str) -> None:
    assert matches(path, [pattern]) in (True, False)
    assert matches(path, ["**", path[-1]])
