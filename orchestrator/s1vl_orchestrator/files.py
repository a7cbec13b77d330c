"""Files on the image volume: opened without following a link out, written whole or not at all.

A tenant's sandbox runs hostile code with write access to the tenant's folder while we work in it, so every access
walks down from a directory descriptor and refuses symlinks; a check followed by an ordinary open would be a race.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s1vl_orchestrator.paths import Relative

DIRECTORY_MODE = 0o770
FILE_MODE = 0o660
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that somebody put there must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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
            try:
                os.mkdir(part, dir_fd=fd)
                os.chmod(part, DIRECTORY_MODE, dir_fd=fd)
            except FileExistsError:
                pass
            below = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def list_files(folder: Path, path: Relative, limit: int = 1000) -> list[Entry]:
    """The regular files below a directory, recursively, oldest change first; links are not followed.

    At most `limit` files are looked at: code that makes a million of them must not hold us up.
    """
    found: list[Entry] = []
    try:
        with _opened(folder, path) as fd:
            for directory, _, names, directory_fd in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        info = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
                        if stat.S_ISREG(info.st_mode):
                            stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
                            found.append(Entry(path / directory / name, stamp))
                    if len(found) >= limit:
                        return sorted(found, key=lambda entry: entry.stamp)
    except OSError:  # The code removed its own folder.
        return []
    return sorted(found, key=lambda entry: entry.stamp)


def remove_tree(folder: Path, path: Relative) -> None:
    """Remove a directory below `folder` and all in it, never following a link; an absent one is fine.

    Raises:
        OSError: If the volume refuses.
    """
    try:
        with _parent(folder, path) as parent:
            shutil.rmtree(path.name, dir_fd=parent)
    except FileNotFoundError:
        return


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
            below = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
