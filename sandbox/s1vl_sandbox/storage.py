"""Prepares one tenant's folders on the image volume, from an init container.

The kubelet creates a missing sub-path as root:root 0750, and fsGroup does nothing on NFS and hostPath: a pod that runs
as another user could not write there. So the folders are made here, before the sandbox mounts the sub-path.

Everything is opened relative to the parent's descriptor without following symbolic links: whoever can write to one
folder must not be able to point this program, which may run as root, at another one.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path, PurePosixPath

UID = GID = 10001
# Owner and group write; new files get the folder's group; others see nothing.
MODE = 0o2770
OWN_FOLDERS = (".s1vl/jobs", ".s1vl/canary")
# At the volume's root, where no sandbox reaches: copies of pictures that the orchestrator makes for the engine.
ENGINE_FOLDER = ".s1vl/engine"

_TERMINATION_LOG = Path("/dev/termination-log")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StorageError(Exception):
    """Why a tenant's folder cannot be used, in one line for an administrator."""


def split_sub_path(sub_path: str) -> tuple[str, ...]:
    """Check a sub path and return its parts.

    Raises:
        StorageError: It is absolute, has empty, ``.`` or ``..`` parts, or reaches into the ``.s1vl`` folder.
    """
    if sub_path == "":
        return ()
    parts = sub_path.split("/")
    if "\0" in sub_path or any(part in ("", ".", "..") for part in parts):
        raise StorageError(f"sub path {sub_path!r} must be relative, without empty parts, '.' and '..'")
    if ".s1vl" in parts:
        raise StorageError(f"sub path {sub_path!r} reaches into .s1vl, which holds what jobs make")
    return tuple(parts)


def prepare(root: Path, sub_path: str) -> Path:
    """Create the tenant's folder and our folders in it, and prove that they can be used. Idempotent.

    Folders that exist keep their owner; ours are repaired. Run as root, everything made here belongs to 10001:10001.

    Args:
        root: Where the whole volume is mounted.
        sub_path: The tenant's folder below it, "" for the root itself.

    Returns:
        The tenant's folder.

    Raises:
        StorageError: With the reason.
    """
    parts = split_sub_path(sub_path)
    shown = PurePosixPath(root, *parts)
    tenant = _open_root(root)
    try:
        for depth, part in enumerate(parts):
            tenant = _enter(tenant, part, PurePosixPath(root, *parts[: depth + 1]))
        for folder in OWN_FOLDERS:
            _prepare_own(os.dup(tenant), PurePosixPath(folder).parts, shown)
        _verify_read(tenant, shown)
    finally:
        os.close(tenant)
    return Path(shown)


def prepare_engine_folder(root: Path) -> None:
    """Create the folder of the engine's copies at the volume's root. Idempotent.

    Raises:
        StorageError: With the reason. The orchestrator then sends pictures inline, which works and costs more.
    """
    _prepare_own(_open_root(root), PurePosixPath(ENGINE_FOLDER).parts, PurePosixPath(root))


def _open_root(root: Path) -> int:
    """Open the volume itself; unlike what lies in it, its mount point may be a link."""
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"the image volume is not mounted at {root}: {error.strerror}") from error


def _prepare_own(parent: int, parts: tuple[str, ...], shown: PurePosixPath) -> None:
    try:
        for part in parts:
            shown /= part
            parent = _enter(parent, part, shown, repair=True)
        _verify_write(parent, shown)
    finally:
        os.close(parent)


def _enter(parent: int, name: str, shown: PurePosixPath, *, repair: bool = False) -> int:
    """Open the folder ``name`` in ``parent``, making it if needed, and close ``parent`` when that worked."""
    made = False
    try:
        try:
            os.mkdir(name, MODE, dir_fd=parent)
            made = True
        except FileExistsError:
            pass
        folder = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except NotADirectoryError as error:
        what = "a symbolic link" if _is_link(name, parent) else "not a folder"
        raise StorageError(f"{shown} is {what}; refusing to use it") from error
    except OSError as error:
        raise StorageError(f"cannot make {shown}: {_explain(error)}") from error
    try:
        if made or repair:
            _own(folder)
    except OSError as error:
        os.close(folder)
        raise StorageError(f"cannot set owner and mode of {shown}: {_explain(error)}") from error
    os.close(parent)
    return folder


def _own(folder: int) -> None:
    status = os.fstat(folder)
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (UID, GID):
        os.fchown(folder, UID, GID)
    # After chown, which clears the set-group-id bit. The umask has cut what mkdir was asked for.
    if stat.S_IMODE(status.st_mode) != MODE and os.geteuid() in (0, status.st_uid):
        os.fchmod(folder, MODE)


def _verify_read(folder: int, shown: PurePosixPath) -> None:
    """The tenant's own folder must be readable; jobs write into ours only, so a host's folder may stay root's."""
    status = os.fstat(folder)
    if not _may(status, read=True):
        raise StorageError(
            f"{shown} belongs to {status.st_uid}:{status.st_gid} with mode {stat.S_IMODE(status.st_mode):04o}: "
            f"user {UID}:{GID} cannot read there; chown it or allow group {GID} to read"
        )


def _verify_write(folder: int, shown: PurePosixPath) -> None:
    """Write as the user that the sandbox will run as, not as root to whom everything is allowed."""
    if os.geteuid() == 0:
        status = os.fstat(folder)
        if not _may(status):
            raise StorageError(
                f"{shown} belongs to {status.st_uid}:{status.st_gid} with mode {stat.S_IMODE(status.st_mode):04o}: "
                f"user {UID}:{GID} cannot write there; chown it or allow group {GID} to write"
            )
    name = f".s1vl-write-test-{os.urandom(16).hex()}"
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        raise StorageError(f"cannot write to {shown}: {_explain(error)}") from error


def _may(status: os.stat_result, *, read: bool = False) -> bool:
    """Whether the sandbox's user may write to a folder, or just read it."""
    bits = 0o5 if read else 0o3
    shift = 6 if status.st_uid == UID else 3 if status.st_gid == GID else 0
    return (status.st_mode >> shift) & bits == bits


def _is_link(name: str, parent: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _explain(error: OSError) -> str:
    return f"{error.strerror} (running as {os.geteuid()}:{os.getegid()})"


def main(root: Path, sub_path: str, termination_log: Path = _TERMINATION_LOG) -> int:
    """Prepare and report: 0, or 1 with the reason on stderr and in the pod's termination message."""
    try:
        folder = prepare(root, sub_path)
    except StorageError as error:
        print(f"storage-init: {error}", file=sys.stderr)
        if termination_log.exists():
            termination_log.write_text(f"{error}\n")
        return 1
    try:
        prepare_engine_folder(root)
    except StorageError as error:
        print(f"storage-init: pictures will go to the engine inline: {error}", file=sys.stderr)
    print(f"storage-init: {folder} is ready")
    return 0
