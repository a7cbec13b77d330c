"""Files on the image volume: opened without following a link out, written whole or not at all.

A tenant's sandbox runs hostile code with write access to the tenant's folder while we work in it, so every access
walks down from a directory descriptor and refuses symlinks; a check followed by an ordinary open would be a race.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from s1vl_orchestrator.paths import Relative
from s1vl_orchestrator.removal import DIRECTORY, removal

DIRECTORY_MODE = 0o770
FILE_MODE = 0o660
# O_NONBLOCK: opening a FIFO that somebody put there must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.ENAMETOOLONG}
_CHUNK_BYTES = 256 * 1024
_MOST_LISTED = 1000
_MOST_REMOVED = 1_000_000
_DEEPEST = 32
"""Folders below a job's that are looked into; each costs a descriptor while it is."""


class NotOursError(OSError):
    """The path does not lead to a regular file below the folder (absent, a link out, a device: not told apart)."""


class FileTooLargeError(OSError):
    """The file has more bytes than allowed."""


@dataclass(frozen=True)
class Entry:
    """One regular file of a folder. `stamp` changes when the file does."""

    path: Relative
    stamp: tuple[int, int, int]


def resolve(folder: Path, path: Relative) -> Relative:
    """Follow symlinks below `folder` and return the real path below it.

    Raises:
        NotOursError: If it does not exist or leads out.
    """
    try:
        base = folder.resolve(strict=True)
        return Relative((folder / path).resolve(strict=True).relative_to(base))
    except (OSError, ValueError, RuntimeError) as error:
        raise NotOursError(str(path)) from error


def read(folder: Path, path: Relative, limit: int) -> bytes:
    """Read a regular file below `folder`; no component of `path` may be a symlink.

    Raises:
        NotOursError: If there is no such regular file.
        FileTooLargeError: If it has more than `limit` bytes, also when it grows meanwhile.
    """
    try:
        with _opened(folder, path) as fd:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_size <= limit:
                with os.fdopen(os.dup(fd), "rb") as file:
                    content = file.read(limit + 1)
                size = len(content)
            else:
                content, size = None, info.st_size if stat.S_ISREG(info.st_mode) else -1
    except OSError as error:
        raise NotOursError(str(path)) from error
    if size > limit:
        raise FileTooLargeError(f"more than {limit} bytes")
    if content is None:
        raise NotOursError(str(path))
    return content


def copy(folder: Path, path: Relative, target: IO[bytes], limit: int) -> str:
    """Copy a regular file below `folder` into `target`; no component of `path` may be a symlink.

    Returns:
        The SHA-256 of what was copied, in hex: the file itself may be another one by now.

    Raises:
        NotOursError: If there is no such regular file.
        FileTooLargeError: If it has more than `limit` bytes, also when it grows meanwhile.
        OSError: If the volume refuses.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(folder, path) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotOursError(str(path))
            while chunk := os.read(fd, _CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise FileTooLargeError(f"more than {limit} bytes")
                digest.update(chunk)
                target.write(chunk)
    except OSError as error:
        if error.errno in _ABSENT:
            raise NotOursError(str(path)) from error
        raise
    return digest.hexdigest()


def write(folder: Path, path: Relative, content: bytes) -> None:
    """Write a new file below `folder` so that readers see all of it or nothing. Parents must exist.

    Raises:
        OSError: If the volume refuses.
    """
    with _parent(folder, path) as parent:
        temporary = f".{path.name}.{secrets.token_hex(4)}"
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE, dir_fd=parent
        )
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(file.fileno(), FILE_MODE)  # The umask must not decide whether the sandbox can read it.
                file.write(content)
            os.rename(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise


def make_directory(folder: Path, path: Relative) -> None:
    """Make a directory below `folder`, parents too; one that is already there is fine.

    Raises:
        OSError: If the volume refuses, or a component is a symlink or a file.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts:
            made = True
            try:
                os.mkdir(part, dir_fd=fd)
            except FileExistsError:
                made = False
            below = os.open(part, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
            if made:
                # By the descriptor: the name may be a link by now, and be somebody else's folder.
                os.fchmod(fd, DIRECTORY_MODE)
    finally:
        os.close(fd)


def list_files(folder: Path, path: Relative) -> list[Entry]:
    """The regular files below a directory, recursively, oldest change first; links are not followed.

    At most 1000 entries are looked at: code that makes a million of them must not hold us up. A name that is not
    UTF-8 cannot be told to anybody and is left out, as is what lies deeper than 32 folders.
    """
    found: list[Entry] = []
    with contextlib.suppress(OSError), _opened(folder, path) as fd:  # The code may have removed its own folder.
        for below, info in itertools.islice(walk(fd), _MOST_LISTED):
            if stat.S_ISREG(info.st_mode) and _is_unicode(below):
                found.append(Entry(path / below, (info.st_mtime_ns, info.st_size, info.st_ino)))
    return sorted(found, key=lambda entry: entry.stamp)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # A byte that is not UTF-8 comes as half a surrogate pair.
        return False
    return True


def walk(fd: int, depth: int = _DEEPEST) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below an open directory with what is known of it; links are not followed, locked folders not entered.

    Whatever vanishes meanwhile is left out.
    """
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
                yield entry.name, info
                if depth and stat.S_ISDIR(info.st_mode):
                    inner = os.open(entry.name, DIRECTORY, dir_fd=fd)
                else:
                    continue
            except OSError:
                continue
            try:
                for below, what in walk(inner, depth - 1):
                    yield f"{entry.name}/{below}", what
            finally:
                os.close(inner)


def remove_tree(folder: Path, path: Relative) -> None:
    """Remove a directory below `folder` and all in it, never following a link; an absent one is fine.

    Raises:
        OSError: If the volume refuses.
    """
    with contextlib.suppress(FileNotFoundError), _parent(folder, path) as parent:
        for count, _ in enumerate(removal(parent, path.name)):
            if count == _MOST_REMOVED:
                raise OSError(errno.ENOTEMPTY, f"more than {_MOST_REMOVED} entries", path.name)


@contextlib.contextmanager
def directory(folder: Path, path: Relative) -> Iterator[int]:
    """A descriptor of a directory below `folder`; no component of `path` may be a symlink.

    Raises:
        OSError: If there is none.
    """
    with _parent(folder, path) as parent, directory_in(parent, path.name) as fd:
        yield fd


@contextlib.contextmanager
def directory_in(parent: int, name: str) -> Iterator[int]:
    """A descriptor of a directory in an open one. Raises OSError if there is none, or a symlink in its place."""
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(folder: Path, path: Relative) -> Iterator[int]:
    with _parent(folder, path) as parent:
        fd = os.open(path.name, _FILE, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _parent(folder: Path, path: Relative) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[:-1]:
            below = os.open(part, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
