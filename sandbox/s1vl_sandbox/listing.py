"""What lies in a folder that hostile code may have filled, within bounds."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from s1vl_sandbox.files import Files, split_path

MAX_DEPTH = 64
"""Folders below folders; each level holds a descriptor while it is read."""


@dataclass(frozen=True)
class Entry:
    """Something in a folder. Links are entries of their own: what they point at is never looked at.

    Attributes:
        parts: Names of the folders below the one that was read, and the entry's own.
        folder: Path of the folder that was read.
        status: What ``lstat`` says.
    """

    parts: tuple[str, ...]
    folder: PurePosixPath
    status: os.stat_result

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def path(self) -> str:
        """The whole path."""
        return str(self.folder.joinpath(*self.parts))

    @property
    def is_directory(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def modified(self) -> str | None:
        """ISO 8601, UTC; None for a time that no calendar has."""
        try:
            return datetime.fromtimestamp(self.status.st_mtime, UTC).isoformat()
        except (OverflowError, ValueError, OSError):
            return None


class Scan:
    """Reads a folder, and the folders below it down to ``depth`` levels.

    Args:
        depth: 1 reads the folder alone.
        hidden: Whether names that begin with a dot count.
        limit: Entries after which to stop.

    Attributes:
        entries: What was found, in no order.
        truncated: Something was left out: too many entries, too deep, or a folder that may not be read.
    """

    def __init__(self, files: Files, path: str, *, depth: int, hidden: bool, limit: int) -> None:
        self.entries: list[Entry] = []
        self.truncated = False
        self._folder = PurePosixPath("/", *split_path(path))
        self._hidden = hidden
        self._limit = limit
        with files.folder(path) as folder:
            self._read(folder, (), min(depth, MAX_DEPTH), cut=depth > MAX_DEPTH)

    def _read(self, folder: int, above: tuple[str, ...], depth: int, *, cut: bool) -> None:
        with os.scandir(folder) as found:
            for item in found:
                if item.name.startswith(".") and not self._hidden:
                    continue
                if len(self.entries) >= self._limit:
                    self.truncated = True
                    return
                try:
                    entry = Entry((*above, item.name), self._folder, item.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                self.entries.append(entry)
                if not entry.is_directory:
                    continue
                if depth > 1:
                    self._read_below(folder, entry, depth - 1, cut=cut)
                elif cut:
                    self.truncated = True

    def _read_below(self, folder: int, entry: Entry, depth: int, *, cut: bool) -> None:
        try:
            inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            self.truncated = True
            return
        try:
            self._read(inner, entry.parts, depth, cut=cut)
        finally:
            os.close(inner)


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a relative path matches a glob, both in parts; ``**`` stands for any number of folders.

    Takes time in proportion to the product of both lengths, whatever the pattern.
    """

    def and_after(places: set[int]) -> set[int]:
        """A `**` may stand for nothing, so its place is also the next one."""
        reached: set[int] = set()
        for place in places:
            reached.add(place)
            while place < len(pattern) and pattern[place] == "**":
                place += 1  # noqa: PLW2901  (walks on from there)
                reached.add(place)
        return reached

    places = and_after({0})
    for part in parts:
        following = set()
        for place in places:
            if place == len(pattern):
                continue
            if pattern[place] == "**":
                following.add(place)
            elif fnmatch.fnmatchcase(part, pattern[place]):
                following.add(place + 1)
        places = and_after(following)
    return len(pattern) in places
