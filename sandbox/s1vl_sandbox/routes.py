"""AIO Sandbox's HTTP API, as far as a model that thinks with images needs it."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import sys
import time
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from s1vl_sandbox.envelope import Envelope, failure, success
from s1vl_sandbox.kernel import KERNEL_NAME, CellResult, CellStatus, KernelStartError
from s1vl_sandbox.server import Server
from s1vl_sandbox.sessions import Session, SessionClosedError, SessionLimitError, WorkingDirectoryError

_KERNEL_NAMES = (KERNEL_NAME, f"python{sys.version_info.major}.{sys.version_info.minor}")
_SHOWN_PACKAGES = ("ipykernel", "numpy", "pillow", "opencv-python-headless", "matplotlib")

SessionId = Annotated[str, Field(min_length=1, max_length=200)]

router = APIRouter(prefix="/v1")


class ExecuteRequest(BaseModel):
    """Body of ``POST /v1/jupyter/execute``."""

    code: str
    timeout: int = Field(30, ge=1, le=300, description="Seconds after which the cell is interrupted.")
    kernel_name: str | None = None
    session_id: SessionId | None = Field(None, description="An unknown name opens a session of that name.")
    cwd: str | None = Field(None, description="Absolute path of a directory to change to before the cell.")


class CreateSessionRequest(BaseModel):
    """Body of ``POST /v1/jupyter/sessions/create``."""

    session_id: SessionId | None = None
    kernel_name: str | None = None
    cwd: str | None = None


class RequestRefusedError(Exception):
    """A request that cannot be handled: HTTP status, message and hint of the answer."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _check_kernel_name(name: str | None) -> None:
    if name is not None and name not in _KERNEL_NAMES:
        raise RequestRefusedError(400, f"there is no kernel {name[:60]!r}", f"available: {', '.join(_KERNEL_NAMES)}")


def _session_info(session: Session, now: float) -> dict[str, Any]:
    return {
        "kernel_name": KERNEL_NAME,
        "last_used": session.last_used,
        "age_seconds": max(0, int(now - session.created)),
    }


def _told(result: CellResult, timeout: int) -> tuple[str, str | None]:
    """Message and hint for a cell that ended in some way."""
    lost = "All variables of the session are lost; the next call gets a fresh kernel."
    if result.status is CellStatus.TIMEOUT:
        how = "did not stop when interrupted and its kernel was killed" if result.state_lost else "was interrupted"
        kept = lost if result.state_lost else "The variables of the session have survived."
        return f"the cell ran over {timeout} s and {how}", kept
    if result.state_lost:
        return "the kernel ended during the cell", lost
    return ("the cell raised an error" if result.status is CellStatus.ERROR else "ok"), None


@router.post("/jupyter/execute")
async def execute(body: ExecuteRequest, request: Request) -> Envelope:
    """Run a cell. HTTP 200 says only that it was run; ``data.status`` says how it ended: ok, error or timeout."""
    _check_kernel_name(body.kernel_name)
    session_id, result = await _server(request).sessions.execute(body.code, body.timeout, body.session_id, body.cwd)
    message, hint = _told(result, body.timeout)
    data = {
        "kernel_name": KERNEL_NAME,
        "session_id": session_id,
        "status": result.status.value,
        "execution_count": result.execution_count,
        "outputs": result.outputs,
        "code": body.code,
        "msg_id": result.msg_id,
        "state_lost": result.state_lost,
        "truncated": result.truncated,
    }
    return success(data, message, hint)


@router.post("/jupyter/sessions/create")
async def create_session(body: CreateSessionRequest, request: Request) -> Envelope:
    """Open a session and wait until its kernel can run code; a session of that name that is open is kept."""
    _check_kernel_name(body.kernel_name)
    session = await _server(request).sessions.create(body.session_id, body.cwd)
    message = "the session is ready"
    return success({"session_id": session.session_id, "kernel_name": KERNEL_NAME, "message": message}, message)


@router.get("/jupyter/sessions")
async def list_sessions(request: Request) -> Envelope:
    """All open sessions."""
    sessions = _server(request).sessions
    now = sessions.now()
    return success({"sessions": {s.session_id: _session_info(s, now) for s in sessions.all()}})


@router.get("/jupyter/sessions/{session_id}")
async def get_session(session_id: str, request: Request) -> Envelope:
    """One open session."""
    sessions = _server(request).sessions
    session = sessions.get(session_id)
    if session is None:
        raise RequestRefusedError(404, "there is no such session", "it was deleted or has expired")
    return success({"session_id": session_id, **_session_info(session, sessions.now())})


@router.delete("/jupyter/sessions/{session_id}")
async def delete_session(session_id: str, request: Request) -> Envelope:
    """Close a session: end its processes, running cells included, and remove its files."""
    if not await _server(request).sessions.delete(session_id):
        raise RequestRefusedError(404, "there is no such session", "it was deleted or has expired")
    return success(None, "the session is closed")


@router.delete("/jupyter/sessions")
async def delete_sessions(request: Request) -> Envelope:
    """Close all sessions."""
    count = await _server(request).sessions.delete_all()
    return success(None, f"{count} sessions are closed")


@router.get("/jupyter/info")
async def info(request: Request) -> Envelope:
    """What this service can do and how much of it is in use."""
    server = _server(request)
    return success(
        {
            "default_kernel": KERNEL_NAME,
            "available_kernels": list(_KERNEL_NAMES),
            "active_sessions": len(server.sessions),
            "session_timeout_seconds": server.settings.session_timeout_seconds,
            "max_sessions": server.settings.max_sessions,
            "description": "One IPython kernel per session, started ahead of need.",
            "kernel_detection": "static",
            "warm_kernels": server.pool.size,
        }
    )


@router.get("/sandbox")
async def sandbox(request: Request) -> Envelope:
    """This process and what it enforces. AIO's clients read the fields beside the envelope."""
    server = _server(request)
    home, workspace = os.environ.get("HOME", "/"), server.settings.workspace or None
    version = importlib.metadata.version("s1vl")
    detail = {
        "system": {
            "os": platform.system(),
            "os_version": platform.release(),
            "arch": platform.machine(),
            "user": _user(),
            "home_dir": home,
            "workspace": workspace,
            "timezone": time.tzname[0],
            "occupied_ports": [str(server.settings.port)],
        },
        "runtime": {"python": [{"ver": platform.python_version(), "bin": sys.executable}], "nodejs": []},
        "utils": [],
    }
    data = {
        "boot_id": server.boot_id,
        "version": version,
        "packages": {name: importlib.metadata.version(name) for name in _SHOWN_PACKAGES},
        "limits": server.describe_limits(),
    }
    return {**success(data), "home_dir": home, "workspace": workspace, "version": version, "detail": detail}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # The image has no passwd entry for the uid it is run with.
        return str(os.getuid())


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def unknown(path: str) -> Envelope:
    """Everything of AIO Sandbox that is left out."""
    raise RequestRefusedError(
        404,
        f"/v1/{path[:200]} is not part of this sandbox",
        "it runs Python in Jupyter kernels: see /v1/jupyter/info; there is no browser, shell, VNC or MCP",
    )


def install_error_handlers(app: FastAPI) -> None:
    """Have every refusal answered in the envelope."""

    def answer(status: int, message: str, hint: str | None = None, **more: Any) -> JSONResponse:
        return JSONResponse({**failure(message, hint), **more}, status)

    async def refused(_: Request, error: RequestRefusedError) -> JSONResponse:
        return answer(error.status, str(error), error.hint)

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
        SessionLimitError: session_limit,
        WorkingDirectoryError: directory,
        SessionClosedError: closed,
        KernelStartError: no_kernel,
        RequestValidationError: invalid,
        HTTPException: http,
    }.items():
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]  # each handler takes its own kind of error
