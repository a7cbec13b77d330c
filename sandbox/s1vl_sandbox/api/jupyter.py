"""``/v1/jupyter``: cells and sessions."""

from __future__ import annotations

import sys
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from s1vl_sandbox.api.common import DEFAULT_TIMEOUT_SECONDS, SessionId, Timeout, server_of
from s1vl_sandbox.api.errors import RequestRefusedError
from s1vl_sandbox.cells import KERNEL_NAME, CellResult, CellStatus
from s1vl_sandbox.envelope import Envelope, success
from s1vl_sandbox.sessions import Session

_KERNEL_NAMES = (KERNEL_NAME, f"python{sys.version_info.major}.{sys.version_info.minor}")

router = APIRouter(prefix="/jupyter")


class ExecuteRequest(BaseModel):
    """Body of ``POST /v1/jupyter/execute``."""

    code: str
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS
    kernel_name: str | None = None
    session_id: SessionId | None = Field(None, description="An unknown name opens a session of that name.")
    cwd: str | None = Field(None, description="Absolute path of a directory to change to before the cell.")
    readable: list[str] = Field(
        [], max_length=1000, description="Absolute paths: of the workspace, a new session may read only these."
    )


class CreateSessionRequest(BaseModel):
    """Body of ``POST /v1/jupyter/sessions/create``."""

    session_id: SessionId | None = None
    kernel_name: str | None = None
    cwd: str | None = Field(None, description="Absolute path; below the workspace it may be written to.")
    readable: list[str] = Field(
        [], max_length=1000, description="Absolute paths: of the workspace, a new session may read only these."
    )


def _check_kernel_name(name: str | None) -> None:
    if name is not None and name not in _KERNEL_NAMES:
        raise RequestRefusedError(400, f"there is no kernel {name[:60]!r}", f"available: {', '.join(_KERNEL_NAMES)}")


def _session_info(session: Session, now: float) -> dict[str, Any]:
    return {
        "kernel_name": KERNEL_NAME,
        "last_used": session.last_used,
        "age_seconds": max(0, int(now - session.created)),
    }


def told(result: CellResult, timeout: int) -> tuple[str, str | None]:
    """Message and hint for a cell that ended in some way."""
    lost = "All variables of the session are lost; the next call gets a fresh kernel."
    if result.status is CellStatus.TIMEOUT:
        how = "did not stop when interrupted and its kernel was killed" if result.state_lost else "was interrupted"
        kept = lost if result.state_lost else "The variables of the session have survived."
        return f"the cell ran over {timeout} s and {how}", kept
    if result.state_lost:
        return "the kernel ended during the cell", lost
    return ("the cell raised an error" if result.status is CellStatus.ERROR else "ok"), None


@router.post("/execute")
async def execute(body: ExecuteRequest, request: Request) -> Envelope:
    """Run a cell. HTTP 200 says only that it was run; ``data.status`` says how it ended: ok, error or timeout."""
    _check_kernel_name(body.kernel_name)
    session_id, result = await server_of(request).sessions.execute(
        body.code, body.timeout, body.session_id, body.cwd, body.readable
    )
    message, hint = told(result, body.timeout)
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


@router.post("/sessions/create")
async def create_session(body: CreateSessionRequest, request: Request) -> Envelope:
    """Open a session and wait until its kernel can run code; a session of that name that is open is kept."""
    _check_kernel_name(body.kernel_name)
    session = await server_of(request).sessions.create(body.session_id, body.cwd, body.readable)
    message = "the session is ready"
    return success({"session_id": session.session_id, "kernel_name": KERNEL_NAME, "message": message}, message)


@router.get("/sessions")
async def list_sessions(request: Request) -> Envelope:
    """All open sessions."""
    sessions = server_of(request).sessions
    now = sessions.now()
    return success({"sessions": {s.session_id: _session_info(s, now) for s in sessions.all()}})


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, request: Request) -> Envelope:
    """One open session."""
    sessions = server_of(request).sessions
    session = sessions.get(session_id)
    if session is None:
        raise RequestRefusedError(404, "there is no such session", "it was deleted or has expired")
    return success({"session_id": session_id, **_session_info(session, sessions.now())})


@router.delete("/sessions/{session_id}")
async def delete_session(session_id: str, request: Request) -> Envelope:
    """Close a session: end its processes, running cells included, and remove its files."""
    if not await server_of(request).sessions.delete(session_id):
        raise RequestRefusedError(404, "there is no such session", "it was deleted or has expired")
    return success(None, "the session is closed")


@router.delete("/sessions")
async def delete_sessions(request: Request) -> Envelope:
    """Close all sessions."""
    count = await server_of(request).sessions.delete_all()
    return success(None, f"{count} sessions are closed")


@router.get("/info")
async def info(request: Request) -> Envelope:
    """What this service can do and how much of it is in use."""
    server = server_of(request)
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
