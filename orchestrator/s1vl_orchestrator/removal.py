"""Removing a folder that hostile code has filled, in small steps, however deep, wide or locked it is.

It may still be written to, and others may be removing it at the same time: what is gone already is fine. No link is
ever followed: everything is named relative to a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RIGHTS = 0o700


def removal(parent: int, name: str) -> Iterator[None]:
    """Remove `name` from an open directory; yields after every entry, and can be left at any of them.

    Folders in folders are moved up to the top one by one, so that depth costs neither frames nor descriptors nor long
    paths.

    Raises:
        OSError: If something cannot be removed, e.g. because it belongs to another user.
    """
    with contextlib.suppress(FileNotFoundError):
        top = _enter(parent, name)
        if top is None:
            os.unlink(name, dir_fd=parent)
            return
        try:
            while not _remove_folder(parent, name):
                before, steps = os.fstat(top).st_mtime_ns, 0
                for _ in _empty(top):
                    steps += 1
                    yield
                if not steps and os.fstat(top).st_mtime_ns == before:
                    raise OSError(errno.ENOTEMPTY, "something that cannot be seen is left", name)
        finally:
            os.close(top)


def _empty(top: int) -> Iterator[None]:
    """Remove what is in a folder now; what lies two folders deep is in the top one afterwards."""
    with os.scandir(top) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                inner = _enter(top, entry.name)
                if inner is None:
                    os.unlink(entry.name, dir_fd=top)
                else:
                    try:
                        yield from _lift(inner, top)
                    finally:
                        os.close(inner)
                    _remove_folder(top, entry.name)
            yield


def _lift(inner: int, top: int) -> Iterator[None]:
    with os.scandir(inner) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    _rename(entry.name, inner, top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
            yield


def _rename(name: str, inner: int, top: int) -> None:
    new = secrets.token_hex(16)
    try:
        os.rename(name, new, src_dir_fd=inner, dst_dir_fd=top)
    except PermissionError:
        # A folder's entry for its parent is its own: to move it one must be allowed to write to it.
        _unlock(inner, name)
        os.rename(name, new, src_dir_fd=inner, dst_dir_fd=top)


def _remove_folder(parent: int, name: str) -> bool:
    """Remove an empty folder; whether it is gone."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _enter(parent: int, name: str) -> int | None:
    """A descriptor of a folder in which we may do everything; None for what is no folder."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return None
    try:
        folder = os.open(name, DIRECTORY, dir_fd=parent)
    except NotADirectoryError:  # It was replaced just now.
        return None
    except PermissionError:
        _unlock(parent, name)
        folder = os.open(name, DIRECTORY, dir_fd=parent)
    with contextlib.suppress(PermissionError):  # Another user's; our group may be enough.
        os.fchmod(folder, _RIGHTS)
    return folder


def _unlock(parent: int, name: str) -> None:
    # By a descriptor that needs no right to the folder: its name may be a link by now, and chmod would follow it.
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", _RIGHTS)  # noqa: PTH101 - a descriptor, not a path
    finally:
        os.close(handle)
