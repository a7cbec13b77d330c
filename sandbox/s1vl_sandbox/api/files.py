"""``/v1/file``: files below the home folder, the workspace and the sessions' own folders."""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.types import Receive, Scope, Send

from s1vl_sandbox.api.common import server_of
from s1vl_sandbox.api.errors import RequestRefusedError
from s1vl_sandbox.api.file_answers import answer, as_http_errors, refuse_sudo
from s1vl_sandbox.envelope import Envelope
from s1vl_sandbox.files import FileRefusedError, Files
from s1vl_sandbox.guard import MAX_UPLOAD_BYTES

MAX_TEXT_BYTES = 10 * 1024 * 1024
"""Largest file that is read, written or changed in memory."""

router = APIRouter(prefix="/file")


class ReadRequest(BaseModel):
    """Body of ``POST /v1/file/read``. Lines count from 0; the end is not included."""

    file: str
    start_line: int | None = Field(None, ge=0)
    end_line: int | None = Field(None, ge=0)
    sudo: bool | None = False


class WriteRequest(BaseModel):
    """Body of ``POST /v1/file/write``. In ``raw`` content each character is a byte."""

    file: str
    content: str
    encoding: Literal["utf-8", "base64", "raw"] | None = "utf-8"
    append: bool | None = False
    leading_newline: bool | None = Field(False, description="Only for utf-8.")
    trailing_newline: bool | None = Field(False, description="Only for utf-8.")
    sudo: bool | None = False


class ReplaceRequest(BaseModel):
    """Body of ``POST /v1/file/replace``."""

    file: str
    old_str: str = Field(min_length=1)
    new_str: str
    sudo: bool | None = False


@router.post("/read")
def read(body: ReadRequest, request: Request) -> Envelope:
    """The text of a UTF-8 file of at most 10 MiB, or some lines of it."""

    def work() -> dict[str, Any]:
        refuse_sudo(body.sudo)
        text = _read_text(files_of(request), body.file)
        if body.start_line is not None or body.end_line is not None:
            text = cut_lines(text, body.start_line or 0, body.end_line)
        return {"content": text, "file": body.file}

    return answer("read", body.file, {"content": "", "file": body.file}, work)


@router.post("/write")
def write(body: WriteRequest, request: Request) -> Envelope:
    """Write a file whole or not at all, making the folders above it; or append to it."""

    def work() -> dict[str, Any]:
        refuse_sudo(body.sudo)
        content, files = _decode(body), files_of(request)
        if not (body.append and files.append(body.file, content)):
            files.replace(body.file, io.BytesIO(content))
        return {"file": body.file, "bytes_written": len(content)}

    return answer("write", body.file, {"file": body.file}, work)


@router.post("/replace")
def replace(body: ReplaceRequest, request: Request) -> Envelope:
    """Replace every occurrence of a string in a UTF-8 file of at most 10 MiB."""

    def work() -> dict[str, Any]:
        refuse_sudo(body.sudo)
        files = files_of(request)
        text = _read_text(files, body.file)
        count = text.count(body.old_str)
        if count:
            # Counted before: the result of a long replacement might not fit into memory.
            length = len(text) + count * (len(body.new_str) - len(body.old_str))
            if length > MAX_TEXT_BYTES:
                raise FileRefusedError(errno.EFBIG, "file_too_large", f"the result is over {MAX_TEXT_BYTES} bytes")
            files.replace(body.file, io.BytesIO(text.replace(body.old_str, body.new_str).encode()))
        return {"file": body.file, "replaced_count": count}

    return answer("replace", body.file, {"file": body.file}, work)


@router.post("/upload")
async def upload(request: Request) -> Envelope:
    """Store the form's ``file`` of at most 100 MiB at ``path``, by default under its own name in the home folder."""
    files, home = files_of(request), server_of(request).home
    # Starlette keeps what is over 1 MiB on disk while it arrives.
    async with request.form(max_files=1, max_fields=8) as form:
        file, path = form.get("file"), form.get("path")
        if not isinstance(file, UploadFile):
            raise RequestRefusedError(422, "the form has no part `file` with a file in it")
        given = path if isinstance(path, str) and path else str(home / _base_name(file.filename))
        blank = {"file_path": given, "file_size": 0, "success": False}

        def work() -> dict[str, Any]:
            return {"file_path": given, "file_size": files.replace(given, file.file), "success": True}

        return await run_in_threadpool(answer, "upload", given, blank, work)


@router.api_route("/download", methods=["GET", "HEAD"])
def download(path: str, request: Request) -> FileResponse:
    """The bytes of a file, or a range of them. Errors are HTTP errors: 404, 403, 400."""
    with as_http_errors(path):
        return _OpenFileResponse(files_of(request).open(path), PurePosixPath(path).name)


class _OpenFileResponse(FileResponse):
    """Sends the file that was opened, whatever has its name meanwhile."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(
            f"/proc/self/fd/{file.fileno()}",
            media_type="application/octet-stream",
            filename=name,
            stat_result=os.fstat(file.fileno()),
            headers={"X-Content-Type-Options": "nosniff"},
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def files_of(request: Request) -> Files:
    """The files that may be served at this moment: folders of sessions come and go."""
    return Files(server_of(request).file_roots())


def cut_lines(text: str, first: int, end: int | None) -> str:
    """Lines ``first`` up to, but not including, ``end``. Makes no list of lines: ten million might be in a file."""
    begin = _line_offset(text, first)
    return text[begin:] if end is None else text[begin : max(begin, _line_offset(text, end))]


def _line_offset(text: str, line: int) -> int:
    offset = 0
    for _ in range(line):
        newline = text.find("\n", offset)
        if newline < 0:
            return len(text)
        offset = newline + 1
    return offset


def _read_text(files: Files, path: str) -> str:
    return files.read(path, MAX_TEXT_BYTES).decode()


def _decode(body: WriteRequest) -> bytes:
    try:
        if body.encoding == "base64":
            content = base64.b64decode(body.content, validate=True)
        elif body.encoding == "raw":
            content = body.content.encode("latin-1")
        else:
            text = "\n" * bool(body.leading_newline) + body.content + "\n" * bool(body.trailing_newline)
            content = text.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        message = f"the content is not {body.encoding}: {error}"
        raise FileRefusedError(errno.EINVAL, "bad_request", message) from error
    if len(content) > MAX_TEXT_BYTES:
        hint = f"POST /v1/file/upload takes files of up to {MAX_UPLOAD_BYTES} bytes"
        raise FileRefusedError(errno.EFBIG, "file_too_large", f"the content is over {MAX_TEXT_BYTES} bytes", hint)
    return content


def _base_name(filename: str | None) -> str:
    name = PurePosixPath(filename or "").name
    if name in ("", ".."):
        raise RequestRefusedError(422, "the form has neither a `path` nor a usable file name")
    return name
