"""What AIO Sandbox has and this sandbox has not: 404 with what to use instead."""

from __future__ import annotations

from fastapi import APIRouter

from s1vl_sandbox.api.errors import RequestRefusedError
from s1vl_sandbox.envelope import Envelope

_PYTHON_ONLY = "run Python with POST /v1/jupyter/execute"
_NO_BROWSER = "there is no browser and no display: make pictures in a cell and read them from its outputs"
_IN_A_CELL = "in a cell of POST /v1/jupyter/execute"

# By the beginning of the path, /v1/ left away; the longest that fits counts.
HINTS = {
    "browser": _NO_BROWSER,
    "cdp": _NO_BROWSER,
    "display": _NO_BROWSER,
    "vnc": _NO_BROWSER,
    "code-server": f"there is no editor: {_PYTHON_ONLY}",
    "jupyter": f"there is no notebook server: {_PYTHON_ONLY}",
    "terminal": f"there is no shell service: start programs with subprocess {_IN_A_CELL}",
    "v2": "only version 1 is spoken: the same below /v1/",
    "shell": f"there is no shell service: start programs with subprocess {_IN_A_CELL}",
    "bash": f"there is no shell service: start programs with subprocess {_IN_A_CELL}",
    "nodejs": f"there is no Node.js: {_PYTHON_ONLY}",
    "mcp": f"there are no MCP servers: {_PYTHON_ONLY}",
    "skills": f"there are no skills: {_PYTHON_ONLY}",
    "proxy": "nothing in this sandbox has a network, so there is nothing to proxy",
    "util": f"convert documents {_IN_A_CELL}",
    "auth": "there are no tickets: send the API key as X-AIO-API-Key, as Authorization: Bearer or as ?api_key=",
    "tickets": "there are no tickets: send the API key as X-AIO-API-Key, as Authorization: Bearer or as ?api_key=",
    "sandbox/hooks": "there are no hooks: what code leaves behind goes with its session",
    "sandbox/packages/nodejs": "there is no Node.js: GET /v1/sandbox/packages/python lists what Python has",
    "sandbox/observe": "GET /metrics tells what the sandbox does",
    "file/watch": "changes are not watched: list the folder with POST /v1/file/list",
    "file/search": f"search with re {_IN_A_CELL}, where a pattern that never ends is interrupted",
    "file/grep": f"search with re {_IN_A_CELL}, where a pattern that never ends is interrupted",
    "file/str_replace_editor": "use POST /v1/file/read, /v1/file/write and /v1/file/replace",
}
_OTHERWISE = (
    "GET /v1/jupyter/info, /v1/code/info and /v1/sandbox say what there is: Python in Jupyter kernels, and files"
)

router = APIRouter()


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def unknown(path: str) -> Envelope:
    """Everything of AIO Sandbox that is left out."""
    raise RequestRefusedError(404, f"/{path[:200]} is not part of this sandbox", hint_for(path))


def hint_for(path: str) -> str:
    """What to use instead of a path."""
    parts = path.strip("/").removeprefix("v1/").split("/")
    beginnings = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((HINTS[beginning] for beginning in beginnings if beginning in HINTS), _OTHERWISE)
