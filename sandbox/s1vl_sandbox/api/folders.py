"""``/v1/file/list``, ``find`` and ``glob``: what lies in folders. Links are shown and never followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from s1vl_sandbox.api.file_answers import answer
from s1vl_sandbox.api.files import files_of
from s1vl_sandbox.envelope import Envelope
from s1vl_sandbox.files import FileRefusedError
from s1vl_sandbox.listing import MAX_DEPTH, Entry, Scan, matches

MAX_LISTED = 10_000
MAX_SCANNED = 20_000
"""Entries that one request looks at, whatever it is looking for: about 30 MB while it does."""
MAX_PATTERN_PARTS = 32
MAX_GLOBBED = 50_000

Pattern = Annotated[str, Field(min_length=1, max_length=1000)]

router = APIRouter(prefix="/file")

_SORT_KEYS: dict[str, Callable[[Entry], Any]] = {
    "name": lambda entry: entry.name,
    "path": lambda entry: entry.parts,
    "size": lambda entry: entry.status.st_size,
    "modified": lambda entry: entry.status.st_mtime_ns,
    "type": lambda entry: (not entry.is_directory, PurePosixPath(entry.name).suffix, entry.name),
}


class ListRequest(BaseModel):
    """Body of ``POST /v1/file/list``."""

    path: str
    recursive: bool | None = False
    show_hidden: bool | None = True
    file_types: list[str] | None = Field(None, description="File extensions, such as `.png`.")
    max_depth: int | None = Field(None, ge=1)
    include_size: bool | None = True
    include_permissions: bool | None = False
    sort_by: Literal["name", "size", "modified", "type"] | None = "name"
    sort_desc: bool | None = False


class FindRequest(BaseModel):
    """Body of ``POST /v1/file/find``."""

    path: str
    glob: Pattern = Field(description="Pattern of a name, or of a path below the folder if it has a slash.")


class GlobRequest(BaseModel):
    """Body of ``POST /v1/file/glob``."""

    path: str
    pattern: Pattern = Field(description="Pattern of a path below the folder; `**` is any number of folders.")
    exclude: list[Pattern] | None = Field(None, max_length=100)
    include_hidden: bool | None = False
    files_only: bool | None = True
    include_metadata: bool | None = True
    max_results: int | None = Field(5000, ge=1, le=MAX_GLOBBED)
    sort_by: Literal["path", "name", "size", "modified"] | None = "path"
    sort_desc: bool | None = False


@router.post("/list")
def list_folder(body: ListRequest, request: Request) -> Envelope:
    """What lies in a folder, at most 10,000 entries."""

    def work() -> dict[str, Any]:
        depth = (body.max_depth or MAX_DEPTH + 1) if body.recursive else 1
        scan = Scan(files_of(request), body.path, depth=depth, hidden=body.show_hidden is not False, limit=MAX_LISTED)
        found = _sorted(scan.entries, body.sort_by or "name", body.sort_desc)
        if body.file_types is not None:
            wanted = tuple(f".{extension.lstrip('.')}" for extension in body.file_types)
            found = [entry for entry in found if entry.is_directory or entry.name.endswith(wanted)]
        folders = sum(entry.is_directory for entry in found)
        return {
            "path": body.path,
            "files": [_file_info(entry, body) for entry in found],
            "total_count": len(found),
            "directory_count": folders,
            "file_count": len(found) - folders,
            "truncated": scan.truncated,
        }

    return answer("list", body.path, {"path": body.path}, work)


@router.post("/find")
def find(body: FindRequest, request: Request) -> Envelope:
    """Paths of the files below a folder whose name matches."""

    def work() -> dict[str, Any]:
        pattern = _pattern(body.glob)
        scan = _scan_below(request, body.path, hidden=True)
        found = [entry.path for entry in scan.entries if not entry.is_directory and _fits(entry, pattern)]
        cut = len(found) > MAX_LISTED
        files = [shown(path) for path in sorted(found)[:MAX_LISTED]]
        return {"path": body.path, "files": files, "truncated": scan.truncated or cut}

    return answer("find", body.path, {"path": body.path}, work)


@router.post("/glob")
def glob(body: GlobRequest, request: Request) -> Envelope:
    """What below a folder matches a pattern and none of the excluded ones."""

    def work() -> dict[str, Any]:
        pattern, excluded = _pattern(body.pattern), [_pattern(one) for one in body.exclude or ()]
        scan = _scan_below(request, body.path, hidden=bool(body.include_hidden))
        found = [
            entry
            for entry in scan.entries
            if not (entry.is_directory and body.files_only is not False)
            and matches(entry.parts, pattern)
            and not any(_fits(entry, one) for one in excluded)
        ]
        limit = body.max_results or 5000
        files = [_glob_info(entry, body) for entry in _sorted(found, body.sort_by or "path", body.sort_desc)[:limit]]
        truncated = scan.truncated or len(found) > limit
        return {
            "path": body.path,
            "pattern": body.pattern,
            "files": files,
            "total_count": len(found),
            "truncated": truncated,
        }

    return answer("glob", body.path, {"path": body.path, "pattern": body.pattern}, work)


def shown(name: str) -> str:
    """A name as JSON can carry it: bytes that are not UTF-8, which any cell may put into a name, become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _scan_below(request: Request, path: str, *, hidden: bool) -> Scan:
    return Scan(files_of(request), path, depth=MAX_DEPTH + 1, hidden=hidden, limit=MAX_SCANNED)


def _sorted(entries: Iterable[Entry], by: str, descending: bool | None) -> list[Entry]:
    return sorted(entries, key=_SORT_KEYS[by], reverse=bool(descending))


def _pattern(text: str) -> tuple[str, ...]:
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if not parts or ".." in parts or text.startswith("/") or len(parts) > MAX_PATTERN_PARTS:
        message = (
            f"a pattern names what lies below the folder: not absolute, no '..', {MAX_PATTERN_PARTS} parts at most"
        )
        raise FileRefusedError(errno.EINVAL, "bad_request", message)
    return parts


def _fits(entry: Entry, pattern: tuple[str, ...]) -> bool:
    """A single part is a pattern of names, anywhere below the folder."""
    return matches(entry.parts[-1:] if len(pattern) == 1 else entry.parts, pattern)


def _file_info(entry: Entry, body: ListRequest) -> dict[str, Any]:
    info: dict[str, Any] = {
        "name": shown(entry.name),
        "path": shown(entry.path),
        "is_directory": entry.is_directory,
        "size": entry.status.st_size if body.include_size is not False and entry.is_regular else None,
        "modified_time": entry.modified,
        "permissions": f"{stat.S_IMODE(entry.status.st_mode):04o}" if body.include_permissions else None,
        "extension": shown(PurePosixPath(entry.name).suffix) or None,
    }
    return info


def _glob_info(entry: Entry, body: GlobRequest) -> dict[str, Any]:
    detailed = body.include_metadata is not False
    return {
        "path": shown(entry.path),
        "name": shown(entry.name),
        "is_directory": entry.is_directory,
        "size": entry.status.st_size if detailed and entry.is_regular else None,
        "modified_time": entry.modified if detailed else None,
    }
