"""What a session may touch: from what a client asks for to paths that can be granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s1vl_sandbox.cells import WorkingDirectoryError

_SHOWN_CHARS = 200
# Group-writable with the group passed on: server and kernels have different user ids and one group.
_FOLDER_MODE = 0o2770


@dataclass(frozen=True)
class SessionGrants:
    """What a session's kernel may touch beside its own folder and the system's libraries.

    Attributes:
        read: Files and folders, without symbolic links.
        write: Folders.
        cwd: Where it starts; None is its own folder.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    cwd: Path | None = None


def session_grants(cwd: str | None, readable: Sequence[str], workspace: str) -> SessionGrants:
    """Work out what a session that is opened gets. Makes ``cwd`` if it is below the workspace and its parent exists.

    Args:
        cwd: Absolute path. Below the workspace it may be written, elsewhere it can be used if it may be read.
        readable: Of the workspace only these may be read; empty means all of it.
        workspace: The folder of the tenant's images; "" if there is none.

    Raises:
        WorkingDirectoryError: A path is not absolute or not normalised, or is not where it must be.
    """
    root = Path(workspace).resolve() if workspace else None
    if root is not None and not root.is_dir():
        root = None
    read = tuple(_readable(path, root, workspace) for path in readable)
    if root is not None and not read:
        read = (root,)
    if not cwd:
        return SessionGrants(read)
    path = _plain("cwd", cwd)
    if root is None or not _below(path, root, workspace):
        return SessionGrants(read, cwd=working_directory(cwd))
    path = _inside(path, root, workspace)
    if not path.exists() and path.parent.is_dir():
        try:
            path.mkdir(exist_ok=True)
            path.chmod(_FOLDER_MODE)
        except OSError as error:
            raise WorkingDirectoryError(f"cwd {_shown(cwd)} cannot be made: {error.strerror}") from error
    resolved = _resolved("cwd", path)
    if not resolved.is_relative_to(root):
        raise WorkingDirectoryError(f"cwd {_shown(cwd)} leads out of the workspace {workspace}")
    if not resolved.is_dir():
        raise WorkingDirectoryError(f"cwd {_shown(cwd)} is not an absolute path of a directory")
    # Reading the whole workspace and writing all of it is what the workspace itself as cwd would come to.
    return SessionGrants(read, (resolved,), resolved)


def working_directory(cwd: str | None) -> Path | None:
    """The directory to change to; whether a kernel may use it, the kernel says.

    Raises:
        WorkingDirectoryError: It is not an absolute path of a directory.
    """
    if not cwd:
        return None
    path = Path(cwd)
    try:
        usable = path.is_absolute() and path.is_dir()
    except (OSError, ValueError):
        usable = False
    if not usable:
        raise WorkingDirectoryError(f"cwd {_shown(cwd)} is not an absolute path of a directory")
    return path.resolve()


def _readable(text: str, root: Path | None, workspace: str) -> Path:
    path = _plain("readable path", text)
    if root is None:
        raise WorkingDirectoryError(f"readable path {_shown(text)}: this sandbox has no workspace")
    if _below(path, root, workspace):
        resolved = _resolved("readable path", _inside(path, root, workspace))
        if resolved.is_relative_to(root):
            return resolved
    raise WorkingDirectoryError(f"readable path {_shown(text)} is not below the workspace {workspace}")


def _below(path: Path, root: Path, workspace: str) -> bool:
    return path.is_relative_to(workspace) or path.is_relative_to(root)


def _inside(path: Path, root: Path, workspace: str) -> Path:
    return root / path.relative_to(workspace if path.is_relative_to(workspace) else root)


def _plain(what: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or "\0" in text:
        what_is = "is not an absolute path of a directory" if what == "cwd" else "is not an absolute, normalised path"
        raise WorkingDirectoryError(f"{what} {_shown(text)} {what_is}")
    return path


def _resolved(what: str, path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkingDirectoryError(f"{what} {_shown(str(path))} cannot be used: {reason}") from error


def _shown(text: str) -> str:
    return repr(text[:_SHOWN_CHARS])
