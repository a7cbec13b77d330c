"""Removing a folder that hostile code has filled, however deep, wide or locked it is."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` with all that is in it; one that is gone, or a symbolic link in its place, is fine, too.

    `shutil.rmtree` calls itself for every level, and a cell can make more levels than Python has frames. This one
    moves what lies deeper up to the top until nothing is left, so that depth costs neither frames nor descriptors
    nor long paths. Nobody else may write to the folder any more.

    Raises:
        OSError: Something cannot be removed, e.g. because it belongs to another user.
    """
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        folder.unlink(missing_ok=True)
        return
    except PermissionError:
        folder.chmod(0o700)
        top = os.open(folder, _FOLDER)
    try:
        os.fchmod(top, 0o700)
        while names := os.listdir(top):  # noqa: PTH208  (of a descriptor)
            for name in names:
                _remove_one(top, name)
    finally:
        os.close(top)
    folder.rmdir()


def _remove_one(top: int, name: str) -> None:
    """Remove ``name`` from ``top``; the folders in it, if it is one, become entries of ``top``."""
    inner = _open_folder(top, name)
    if inner is None:
        os.unlink(name, dir_fd=top)
        return
    try:
        with os.scandir(inner) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    # To move a folder one must be allowed to write to it.
                    os.chmod(entry.name, 0o700, dir_fd=inner)
                    os.rename(entry.name, uuid.uuid4().hex, src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _open_folder(top: int, name: str) -> int | None:
    """A descriptor of a folder with all rights for us; None when it is something else."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        return None
    os.chmod(name, 0o700, dir_fd=top)
    return os.open(name, _FOLDER, dir_fd=top)
