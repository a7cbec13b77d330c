"""``/v1/code``: code without the notebook around it."""

from __future__ import annotations

import platform
import uuid
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from s1vl_sandbox.api.common import DEFAULT_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, SessionId, Timeout, server_of
from s1vl_sandbox.api.jupyter import told
from s1vl_sandbox.cells import KERNEL_NAME, CellResult, CellStatus
from s1vl_sandbox.envelope import Envelope, failure, success

router = APIRouter(prefix="/code")


class CodeRequest(BaseModel):
    """Body of ``POST /v1/code/execute``."""

    language: Literal["python", "javascript"]
    code: str
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS
    cwd: str | None = Field(None, description="Absolute path of a directory to run the code in.")
    stateful: bool | None = Field(False, description="Keep the session, so that a later call finds its variables.")
    session_id: SessionId | None = Field(None, description="Only with `stateful`: the session to use or to open.")


@router.post("/execute")
async def execute(body: CodeRequest, request: Request) -> Envelope:
    """Run Python in a session's kernel, or in one of its own that ends with the call."""
    if body.language == "javascript":
        return _no_javascript(body)
    sessions = server_of(request).sessions
    if body.stateful:
        name, result = await sessions.execute(body.code, body.timeout, body.session_id, body.cwd)
        return _answer(body, result, name)
    # Named here: whatever happens to the call, its session can be closed.
    own = f"code-{uuid.uuid4()}"
    try:
        _, result = await sessions.execute(body.code, body.timeout, own, body.cwd)
    finally:
        await sessions.delete(own)
    return _answer(body, result, None)


@router.get("/info")
async def info() -> Envelope:
    """The languages that code can be in."""
    python = {
        "language": "python",
        "description": "IPython in a Jupyter kernel",
        "runtime_version": platform.python_version(),
        "default_timeout": DEFAULT_TIMEOUT_SECONDS,
        "max_timeout": MAX_TIMEOUT_SECONDS,
        "details": {"kernel_name": KERNEL_NAME, "supports_stateful": True},
    }
    return success({"languages": [python]})


def _answer(body: CodeRequest, result: CellResult, session_id: str | None) -> Envelope:
    message, hint = told(result, body.timeout)
    errors = [output for output in result.outputs if output["output_type"] == "error"]
    exit_codes = {CellStatus.OK: 0, CellStatus.ERROR: 1, CellStatus.TIMEOUT: None}
    data = _data(body, result.status.value) | {
        "outputs": result.outputs,
        "stdout": _stream(result, "stdout"),
        "stderr": _stream(result, "stderr"),
        "exit_code": exit_codes[result.status],
        "traceback": errors[-1]["traceback"] if errors else None,
        "session_id": session_id,
        "state_lost": result.state_lost,
        "truncated": result.truncated,
    }
    return success(data, message, hint)


def _no_javascript(body: CodeRequest) -> Envelope:
    """Refused as AIO tells failures: HTTP 200 and ``success`` false; the language itself is valid, so it is no 422."""
    message, hint = "there is no Node.js: this sandbox runs Python", "GET /v1/code/info lists the languages"
    return failure(message, hint, _data(body, "error") | {"stderr": message})


def _data(body: CodeRequest, status: str) -> dict[str, Any]:
    return {
        "language": body.language,
        "status": status,
        "outputs": [],
        "code": body.code,
        "stdout": "",
        "stderr": "",
        "exit_code": None,
        "traceback": None,
        "session_id": None,
    }


def _stream(result: CellResult, name: str) -> str:
    return "".join(output["text"] for output in result.outputs if output.get("name") == name)
