"""How the file API says that something failed: HTTP 200, ``success`` false, and in ``data`` what and why."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from s1vl_sandbox.api.errors import RequestRefusedError
from s1vl_sandbox.envelope import Envelope, failure, success
from s1vl_sandbox.files import FileRefusedError

# AIO Sandbox's words for error numbers.
_ERROR_TYPES = {
    errno.ENOENT: "not_found",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EEXIST: "already_exists",
    errno.EROFS: "read_only_filesystem",
    errno.ENOSPC: "no_space_left",
    errno.EDQUOT: "no_space_left",
    errno.EISDIR: "invalid_target",
    errno.ENOTDIR: "invalid_target",
    errno.ELOOP: "invalid_target",
    errno.ENAMETOOLONG: "invalid_path",
    errno.EINVAL: "invalid_path",
}
_RETRYABLE = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
# Of the answers that are bytes, and so have no envelope to fail in.
_HTTP_STATUS = {"not_found": 404, "permission_denied": 403, "invalid_path": 400, "invalid_target": 400}

_SUDO_HINT = "everything here runs without privileges; leave `sudo` out"


def answer(operation: str, path: str, blank: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Envelope:
    """Do ``work`` and return its data, or the failure.

    Args:
        operation: Its name in the failure.
        path: The path that the request is about.
        blank: The required fields of the operation's data. They are in a failure too: AIO's own client refuses to read
            an answer that lacks them.
        work: The operation itself.
    """
    try:
        return success(work())
    except (OSError, UnicodeDecodeError) as error:
        message, hint, detail = describe(error)
        data = {**blank, **detail, "message": message, "operation": operation, "path": path}
        return failure(f"{operation} {path[:300]}: {message}", hint, data)


@contextmanager
def as_http_errors(path: str) -> Iterator[None]:
    """Turn failures into HTTP statuses: 404, 403, 400, otherwise 500."""
    try:
        yield
    except OSError as error:
        message, hint, detail = describe(error)
        status = _HTTP_STATUS.get(detail["error_type"], 500)
        raise RequestRefusedError(status, f"{path[:300]}: {message}", hint) from error


def refuse_sudo(sudo: bool | None) -> None:
    """Nobody here may become another user.

    Raises:
        FileRefusedError: It was asked for.
    """
    if sudo:
        raise FileRefusedError(errno.EPERM, "permission_denied", "there is no sudo", _SUDO_HINT)


def describe(error: OSError | UnicodeDecodeError) -> tuple[str, str | None, dict[str, Any]]:
    """Message, hint, and the fields of ``data`` that are about the error itself."""
    if isinstance(error, UnicodeDecodeError):
        message = f"byte {error.start} is not UTF-8"
        hint: str | None = "GET /v1/file/download gives the bytes as they are"
        code, error_type = None, "decode_error"
    elif isinstance(error, FileRefusedError):
        message, hint, code, error_type = str(error.strerror), error.hint, error.errno, error.error_type
    else:
        code = error.errno or errno.EIO
        message, hint, error_type = os.strerror(code), None, _ERROR_TYPES.get(code, "os_error")
    return (
        message,
        hint,
        {
            "errno": code,
            "errno_name": None if code is None else errno.errorcode.get(code),
            "error_type": error_type,
            "exception_type": type(error).__name__,
            "retryable": code in _RETRYABLE,
        },
    )
