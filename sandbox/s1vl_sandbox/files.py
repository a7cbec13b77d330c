"""Files that hostile code may have made, opened by a server that it must not lead astray.

Every path is resolved one component at a time, relative to the descriptor of the folder before it and without
following symbolic links, from a root that the server trusts. Only regular files with one name are opened: a device, a
pipe or a hard link in the place of a picture could block the server or stand for a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, NoReturn

# Kernels run as another user of the same group, and new files of a set-group-id folder get the folder's group.
FILE_MODE = 0o660
FOLDER_MODE = 0o2770

_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FileRefusedError(OSError):
    """A path that is not served, and why.

    Attributes:
        error_type: AIO Sandbox's word for the kind of failure.
        hint: What to do instead.
    """

    def __init__(self, code: int, error_type: str, message: str, hint: str | None = None) -> None:
        super().__init__(code, message)
        self.error_type = error_type
        self.hint = hint


@dataclass(frozen=True)
class Root:
    """A folder below which files are served.

    Attributes:
        anchor: A folder of the server's own. Opened as it is, so it may be reached over links.
        below: The rest of the way, where links are not followed.
    """

    anchor: Path
    below: PurePosixPath = field(default_factory=PurePosixPath)

    @property
    def path(self) -> PurePosixPath:
        """The whole path, as clients write it."""
        return PurePosixPath(self.anchor, self.below)


class Files:
    """Reads and writes below ``roots`` and nowhere else. All methods block, and raise :class:`OSError`."""

    def __init__(self, roots: Sequence[Root]) -> None:
        # The longest first: a root may lie in another one.
        self._roots = sorted(roots, key=lambda root: len(root.path.parts), reverse=True)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file to read."""
        with self._parent(path) as (folder, name):
            return os.fdopen(_open_regular(folder, name, os.O_RDONLY), "rb")

    def read(self, path: str, limit: int) -> bytes:
        """Read a file of at most ``limit`` bytes."""
        with self.open(path) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            hint = "GET /v1/file/download streams files of any size"
            raise FileRefusedError(errno.EFBIG, "file_too_large", f"the file is over {limit} bytes", hint)
        return content

    def replace(self, path: str, content: IO[bytes]) -> int:
        """Write a file whole or not at all, making the folders above it; an old one keeps its mode.

        Returns:
            How many bytes were written.
        """
        with self._parent(path, make=True) as (folder, name):
            mode = _mode_to_keep(folder, name)
            part = f".s1vl-{uuid.uuid4().hex}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
            try:
                with os.fdopen(os.open(part, flags, 0o600, dir_fd=folder), "wb") as file:
                    shutil.copyfileobj(content, file)
                    os.fchmod(file.fileno(), mode)
                    size = file.tell()
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            return size

    def append(self, path: str, content: bytes) -> bool:
        """Write to the end of a file; False if there is none."""
        try:
            with self._parent(path) as (folder, name):
                descriptor = _open_regular(folder, name, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return False
        with os.fdopen(descriptor, "ab") as file:
            file.write(content)
        return True

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """Open a folder to read its entries: a descriptor, closed at the end."""
        root, rest = self._locate(path)
        with self._enter(root, rest) as entered:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=entered)
            try:
                yield folder
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder that a file is in: its descriptor and the file's name."""
        root, rest = self._locate(path)
        if not rest:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with self._enter(root, rest[:-1], make=make) as folder:
            yield folder, rest[-1]

    def _locate(self, path: str) -> tuple[Root, tuple[str, ...]]:
        parts = split_path(path)
        for root in self._roots:
            prefix = root.path.parts[1:]
            if parts[: len(prefix)] == prefix:
                return root, parts[len(prefix) :]
        where = ", ".join(str(root.path) for root in reversed(self._roots))
        hint = f"files are served below: {where}"
        raise FileRefusedError(errno.EACCES, "permission_denied", "the path lies outside of what is served", hint)

    @contextlib.contextmanager
    def _enter(self, root: Root, rest: Sequence[str], *, make: bool = False) -> Iterator[int]:
        folder = os.open(root.anchor, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in root.below.parts:
                folder = _step(folder, name, make=False)
            for name in rest:
                folder = _step(folder, name, make=make)
            yield folder
        finally:
            os.close(folder)


def split_path(path: str) -> tuple[str, ...]:
    """The parts of an absolute path. Repeated slashes and ``.`` mean nothing; ``..`` is refused.

    Raises:
        FileRefusedError: It is not absolute, goes up, or no path at all.
    """
    problem = None
    if not path.startswith("/"):
        problem = "the path is not absolute"
    elif "\0" in path:
        problem = "the path holds a NUL"
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        # Not resolved: after a symbolic link it would not mean what it seems to.
        problem = "the path holds '..'"
    if problem is not None:
        raise FileRefusedError(errno.EINVAL, "invalid_path", problem)
    return parts


def _step(parent: int, name: str, *, make: bool) -> int:
    """Open the folder ``name`` in ``parent`` and close ``parent`` when that worked."""
    try:
        folder = os.open(name, _ENTER, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        _make_folder(parent, name)
        folder = os.open(name, _ENTER, dir_fd=parent)
    except NotADirectoryError:
        _refuse_what_is_there(parent, name)
    os.close(parent)
    return folder


def _make_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        # Another request has made it at this moment.
        return
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # Not by the mkdir, whose mode the umask cuts.
        os.fchmod(folder, FOLDER_MODE)
    finally:
        os.close(folder)


def _open_regular(folder: int, name: str, flags: int) -> int:
    try:
        descriptor = os.open(name, flags | _OPEN, dir_fd=folder)
    except OSError as error:
        # A link; a socket, or a pipe that nobody reads.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            _refuse_what_is_there(folder, name)
        raise
    try:
        _check_regular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        _refuse(_kind(status.st_mode))
    if status.st_nlink > 1:
        _refuse(f"one of {status.st_nlink} hard links to the same file")


def _mode_to_keep(folder: int, name: str) -> int:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return FILE_MODE
    _check_regular(status)
    # The new file belongs to the server, so that the group's bits are all that kernels have.
    return (status.st_mode & 0o777) | FILE_MODE


def _refuse_what_is_there(folder: int, name: str) -> NoReturn:
    _refuse(_kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode))


def _refuse(what: str) -> NoReturn:
    raise FileRefusedError(errno.EPERM, "invalid_target", f"on the path lies {what}; only plain files are served")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "a file in the place of a folder")
