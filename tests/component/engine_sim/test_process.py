"""The simulator as a process: starting, refusing to start, faults, and the ways to die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

VLLM = Path(__file__).resolve().parents[3] / "hack" / "engine_sim" / "bin" / "vllm"
MESSAGES = [{"role": "user", "content": "hello"}]
LONG = {"messages": MESSAGES, "structured_outputs": {"choice": ["word " * 200 + "</think>\n\nend"]}}
DONE = "data: [DONE]"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(VLLM), *arguments]
    return subprocess.run(
        command, check=False, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


@contextlib.asynccontextmanager
async def streaming(engine: Any, **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
    """A stream of which the first chunk with text has been read."""
    async with httpx.AsyncClient(timeout=60) as client:
        body = {**LONG, "stream": True, **fields}
        async with client.stream("POST", f"{engine.url}/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            lines = response.aiter_lines()
            async for line in lines:
                if '"reasoning":' in line:
                    break
            yield lines


async def post(engine: Any, **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(f"{engine.url}/v1/chat/completions", json={**LONG, **fields})


async def health(engine: Any) -> int:
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.get(f"{engine.url}/health")).status_code


def test_the_version_is_printed() -> None:
    assert run("--version", VLLM_SIM_VERSION="0.11.2").stdout == "0.11.2\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--limit-mm-per-prompt", "image=15"], 2, "Value image=15 cannot be converted to <function loads at"),
        (["--no-such-flag"], 2, "unrecognized arguments: --no-such-flag"),
        (["--gpu-memory-utilization", "1.5"], 1, "less than or equal to 1"),
        (["--reasoning-parser", "nope"], 1, "Reasoning parser 'nope' not found. Available parsers: "),
        (["--port", "http"], 2, "invalid int value: 'http'"),
    ],
)
def test_bad_flags_are_refused(arguments: list[str], code: int, message: str) -> None:
    ended = run("serve", "model", *arguments)
    assert ended.returncode == code
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("root", "words"), [("/no/such/folder", "does not exist"), ("/etc/hostname", "must be a directory")]
)
def test_a_bad_media_folder_is_seen_with_the_first_picture(start, image, root: str, words: str) -> None:
    engine = start("--allowed-local-media-path", root)
    assert engine.chat({"type": "text", "text": "hello"}).status_code == 200
    refused = engine.chat(image())
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == f"Invalid `--allowed-local-media-path`: The path {root} {words}."


def test_a_bad_environment_is_refused() -> None:
    ended = run("serve", "model", VLLM_SIM_STARTUP_SECONDS="soon")
    assert (ended.returncode, ended.stderr) == (1, "VLLM_SIM_STARTUP_SECONDS='soon' is not a number\n")


def test_the_port_refuses_connections_while_loading(start, until) -> None:
    engine = start(wait=False, VLLM_SIM_STARTUP_SECONDS="3600")
    log = engine.media.parent / "engine-0.log"
    until(lambda: "vLLM API server version" in log.read_text(), "it is loading")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{engine.url}/health", timeout=5)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(30) == 128 + signal.SIGTERM


async def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(start, until) -> None:
    engine = start(VLLM_SIM_TOKEN_DELAY_MS="10")
    whole = asyncio.create_task(post(engine))
    async with streaming(engine) as lines:
        await asyncio.to_thread(until, lambda: engine.metric("vllm:num_requests_running") == 2, "both are running")
        engine.process.send_signal(signal.SIGTERM)
        while (refused := await post(engine, max_tokens=1)).status_code == 200:
            pass
        assert refused.json()["error"] == {
            "message": "cannot schedule new futures after shutdown",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }
        assert await health(engine) == 200
        rest = [line async for line in lines if line]
    assert rest[-1] == DONE
    assert '"finish_reason":"stop"' in rest[-2]
    assert (await whole).json()["choices"][0]["message"]["content"] == "\n\nend"
    assert engine.process.wait(30) == 0


async def test_sigterm_without_a_timeout_aborts(start) -> None:
    engine = start("--shutdown-timeout", "0", VLLM_SIM_TOKEN_DELAY_MS="50")
    async with streaming(engine) as lines:
        engine.process.send_signal(signal.SIGTERM)
        rest = [line async for line in lines if line]
    assert '"InternalServerError"' in rest[-2]
    assert engine.process.wait(30) == 0


async def test_a_stream_longer_than_the_timeout_stays_open_in_silence(start, until) -> None:
    engine = start("--shutdown-timeout", "0.2", VLLM_SIM_TOKEN_DELAY_MS="1000")
    log = engine.media.parent / "engine-0.log"
    async with streaming(engine) as lines:
        engine.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: "shutdown timeout of 0.2 s is over" in log.read_text(), "it gave up")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await anext(line async for line in lines if line)
        assert engine.process.poll() is None
    assert await asyncio.to_thread(engine.process.wait, 30) == 0


async def test_a_hung_engine_is_healthy_and_makes_no_progress(start, until) -> None:
    engine = start()
    engine.faults(hang=True)
    answer = asyncio.create_task(post(engine))
    await asyncio.to_thread(until, lambda: engine.metric("vllm:num_requests_waiting") == 1, "the request waits")
    assert await health(engine) == 200
    assert engine.metric("vllm:iteration_tokens_total_count") == 0
    engine.faults()
    assert (await answer).status_code == 200
    assert engine.metric("vllm:iteration_tokens_total_count") > 200


async def test_an_engine_that_hangs_in_the_middle_has_running_requests(start, until) -> None:
    engine = start(VLLM_SIM_TOKEN_DELAY_MS="10")
    async with streaming(engine):
        engine.faults(hang=True)
        steps = engine.metric("vllm:iteration_tokens_total_count")
        assert engine.metric("vllm:num_requests_running") == 1
        assert engine.metric("vllm:kv_cache_usage_perc") > 0
        assert engine.metric("vllm:iteration_tokens_total_count") <= steps + 1
    await asyncio.to_thread(until, lambda: engine.metric("vllm:num_requests_running") == 0, "the client left")


async def test_a_request_whose_client_left_is_aborted(start, until) -> None:
    engine = start(VLLM_SIM_TOKEN_DELAY_MS="50")
    with pytest.raises(httpx.ReadTimeout):
        async with httpx.AsyncClient(timeout=0.5) as client:
            await client.post(f"{engine.url}/v1/chat/completions", json=LONG)
    await asyncio.to_thread(until, lambda: engine.metric("vllm:num_requests_running") == 0, "it is aborted")
    record = (await asyncio.to_thread(httpx.get, f"{engine.url}/sim/requests", timeout=30)).json()
    assert [request["finish_reason"] for request in record] == ["abort"]


async def test_failures_are_injected_and_used_up(start) -> None:
    engine = start()
    engine.faults(next_statuses=[503, 429], next_texts=["a</think>b"])
    answers = [await post(engine) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 429, 200]
    assert answers[2].json()["choices"][0]["message"]["content"] == "b"
    engine.faults(error_rate=1, error_status=502)
    assert (await post(engine)).status_code == 502
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{engine.url}/sim/reset")).status_code == 204
    assert (await post(engine)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_the_connection_is_cut(start, stream: bool) -> None:
    engine = start()
    engine.faults(drop_after_tokens=5)
    with pytest.raises(httpx.RemoteProtocolError):
        await post(engine, stream=stream)
    assert (await post(engine)).status_code == 200


def test_unknown_faults_are_refused(start) -> None:
    engine = start()
    assert httpx.put(f"{engine.url}/sim/faults", json={"nope": 1}, timeout=10).status_code == 400


def test_requests_are_on_record(start, image) -> None:
    engine = start()
    engine.chat(image(uuid="u1"), cache_salt="salt")
    engine.chat({"type": "image_url", "image_url": None, "uuid": "u1"}, cache_salt="salt")
    first, second = httpx.get(f"{engine.url}/sim/requests", timeout=10).json()
    assert (first["cache_salt"], first["images"][0]["kind"], first["status"]) == ("salt", "data", 200)
    assert second["images"] == [{"kind": "uuid", "url": "", "uuid": "u1"}]
    assert second["body_bytes"] < first["body_bytes"]
    assert second["cached_tokens"] > 0
    assert engine.metric("vllm:mm_cache_queries_total") == 2
    assert engine.metric("vllm:mm_cache_hits_total") == 1
    httpx.delete(f"{engine.url}/sim/requests", timeout=10)
    assert httpx.get(f"{engine.url}/sim/requests", timeout=10).json() == []


async def test_no_more_requests_run_at_once_than_allowed(start, until) -> None:
    engine = start("--max-num-seqs", "1", "--max-num-queued-reqs", "1", VLLM_SIM_TOKEN_DELAY_MS="10")
    async with streaming(engine):
        queued = asyncio.create_task(post(engine, max_tokens=1))
        await asyncio.to_thread(until, lambda: engine.metric("vllm:num_requests_waiting") == 1, "one waits")
        assert engine.metric("vllm:num_requests_running") == 1
        assert (await post(engine)).status_code == 503
        assert engine.metric("vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
        assert (await queued).status_code == 200


def test_a_stream_interval_makes_fewer_chunks(start) -> None:
    counts = []
    for interval in ("1", "50"):
        engine = start("--stream-interval", interval)
        response = httpx.post(f"{engine.url}/v1/chat/completions", json={**LONG, "stream": True}, timeout=60)
        counts.append(response.text.count('"reasoning":'))
    assert counts[1] <= 6 < counts[0]


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("0.11.0", {"reasoning_content"}),
        ("0.11.2", {"reasoning", "reasoning_content"}),
        ("0.32.0", {"reasoning"}),
    ],
)
def test_the_reasoning_field_depends_on_the_version(start, version: str, fields: set[str]) -> None:
    engine = start(VLLM_SIM_VERSION=version)
    message = engine.chat({"type": "text", "text": "hello"}).json()["choices"][0]["message"]
    assert {name for name in message if name.startswith("reasoning")} == fields


def test_old_versions_refuse_what_new_ones_cut(start) -> None:
    engine = start(VLLM_SIM_VERSION="0.11.2")
    response = engine.chat({"type": "text", "text": "hello"}, max_tokens=32768)
    assert response.status_code == 400
    assert "is too large: 32768. This model's maximum context length is 32768 tokens" in response.text


def test_the_key_guards_only_v1(start) -> None:
    engine = start("--api-key", "k")
    assert httpx.get(f"{engine.url}/v1/models", timeout=10).status_code == 401
    allowed = httpx.get(f"{engine.url}/v1/models", headers={"authorization": "Bearer k"}, timeout=10)
    assert allowed.status_code == 200
    assert httpx.get(f"{engine.url}/metrics", timeout=10).status_code == 200
