"""SIGTERM: running requests finish, new ones are refused, the process ends. After every other file by its name."""

from __future__ import annotations

import json

import httpx
import pytest

from hack.vllm import scripted, serve
from tests.engine.conftest import REAL, TEXT, TIMEOUT, error_of, joined

LONG = "on and on "


def test_sigterm_lets_a_stream_finish_and_refuses_what_is_new(engine, until) -> None:
    server = engine.running()
    if not REAL:
        # Else it could be done before all has been asked that is to be asked meanwhile.
        httpx.put(f"{server.url}/sim/faults", json={"token_delay_ms": 5}).raise_for_status()
    text = LONG * 400
    body = engine.body(TEXT, **scripted(text), stream=True, stream_options={"include_usage": True})
    chunks = []
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body | {"max_tokens": 4000}, timeout=TIMEOUT
    ) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        while len(chunks) < 5:
            if line := next(lines):
                chunks.append(json.loads(line.removeprefix("data: ")))
        server.process.terminate()
        statuses = []

        def refused() -> bool:
            answer = engine.chat(TEXT)
            statuses.append(answer)
            return answer.status_code == 500

        until(refused, "new requests are refused")
        error = error_of(statuses[-1], 500)
        assert error["message"] == "cannot schedule new futures after shutdown"
        assert error["type"] == "InternalServerError"
        assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    chunks += [json.loads(line.removeprefix("data: ")) for line in rest[:-1]]
    assert joined(chunks, "reasoning") == text
    assert server.process.wait(60) == 0
    # The last child may end a moment after its parent.
    until(lambda: serve.members(server.pid) == [], "all its processes are gone")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", timeout=30)
