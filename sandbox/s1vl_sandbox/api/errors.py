"""Every refusal in the envelope."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from s1vl_sandbox.cells import KernelStartError, WorkingDirectoryError
from s1vl_sandbox.envelope import failure
from s1vl_sandbox.sessions import DrainingError, SessionClosedError, SessionLimitError


class RequestRefusedError(Exception):
    """A request that cannot be handled: HTTP status, message and hint of the answer."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


def install_error_handlers(app: FastAPI) -> None:
    """Have every refusal answered in the envelope."""

    def answer(status: int, message: str, hint: str | None = None, **more: Any) -> JSONResponse:
        return JSONResponse({**failure(message, hint), **more}, status)

    async def refused(_: Request, error: RequestRefusedError) -> JSONResponse:
        return answer(error.status, str(error), error.hint)

    async def draining(_: Request, error: DrainingError) -> JSONResponse:
        return answer(503, str(error), "this sandbox is ending and opens no session any more: use another one")

    async def session_limit(_: Request, error: SessionLimitError) -> JSONResponse:
        return answer(400, str(error), "delete a session that is no longer used, or try again later")

    async def directory(_: Request, error: WorkingDirectoryError) -> JSONResponse:
        return answer(400, str(error))

    async def closed(_: Request, error: SessionClosedError) -> JSONResponse:
        return answer(409, str(error), "open a new session")

    async def no_kernel(_: Request, error: KernelStartError) -> JSONResponse:
        return answer(503, f"no kernel could be started: {error}", "try again in a few seconds")

    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # The input itself is left out: it may be megabytes, and it is the caller's own.
        detail = [{"type": e["type"], "loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()]
        first = detail[0]
        where = ".".join(map(str, first["loc"]))
        return answer(422, f"{where}: {first['msg']}", detail=detail)

    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail))

    for kind, handler in {
        RequestRefusedError: refused,
        DrainingError: draining,
        SessionLimitError: session_limit,
        WorkingDirectoryError: directory,
        SessionClosedError: closed,
        KernelStartError: no_kernel,
        RequestValidationError: invalid,
        HTTPException: http,
    }.items():
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]  # each handler takes its own kind of error
