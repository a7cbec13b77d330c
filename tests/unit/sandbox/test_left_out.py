"""What is left out says what to use instead."""

from __future__ import annotations

import pytest

from s1vl_sandbox.api.left_out import hint_for


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("v1/shell/exec", "subprocess"),
        ("mcp", "no MCP servers"),
        ("vnc/index.html", "no browser"),
        ("tickets", "X-AIO-API-Key"),
        ("jupyter/lab", "/v1/jupyter/execute"),
        ("bash/sessions/1/close", "subprocess"),
        ("browser/page/click", "no browser"),
        ("v1/mcp", "no MCP servers"),
        ("v1/nodejs/execute", "no Node.js"),
        ("file/watch/1/poll", "/v1/file/list"),
        ("file/grep", "/v1/jupyter/execute"),
        ("sandbox/packages/nodejs", "/v1/sandbox/packages/python"),
        ("sandbox/hooks/x", "no hooks"),
        ("shells", "/v1/jupyter/info"),
        ("file/nothing", "/v1/jupyter/info"),
        ("", "/v1/jupyter/info"),
    ],
)
def test_hints(path: str, part: str) -> None:
    assert part in hint_for(path)
