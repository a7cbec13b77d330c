"""The series that health, scaling and the benches read: their names and labels, and what moves them."""

from __future__ import annotations

import httpx
import pytest

from hack.vllm import scripted
from tests.engine.conftest import TEXT

ENGINE = {"model_name": "ScienceOne-AI/S1-VL-32B", "engine": "0"}
NAMES = (
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:iteration_tokens_total_count", "vllm:iteration_tokens_total_sum", "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total", "vllm:num_preemptions_total", "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total", "vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total",
    "vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count",
    "vllm:e2e_request_latency_seconds_count", "vllm:request_queue_time_seconds_count",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_series_have_vllms_names(engine, name: str) -> None:
    assert engine.metric(name, **ENGINE) >= 0


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        *(("vllm:num_requests_waiting_by_reason", ENGINE | {"reason": reason}) for reason in ("capacity", "deferred")),
        *(
            ("vllm:request_success_total", ENGINE | {"finished_reason": reason})
            for reason in ("stop", "length", "abort", "error", "repetition")
        ),
        *(
            ("vllm:admission_rejections_total", {"model_name": ENGINE["model_name"], "reason": reason})
            for reason in ("max_num_queued_reqs", "max_num_queued_tokens")
        ),
        *(
            ("vllm:engine_sleep_state", ENGINE | {"sleep_state": state})
            for state in ("awake", "weights_offloaded", "discard_all")
        ),
    ],
)
def test_series_have_vllms_labels(engine, name: str, labels: dict[str, str]) -> None:
    assert labels in [found for found, _ in engine.series(name)]


def test_counters_move_with_the_tokens(engine, until) -> None:
    until(lambda: engine.metric("vllm:num_requests_running") == 0, "nothing runs")
    names = (
        "vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:prefix_cache_queries_total",
        "vllm:e2e_request_latency_seconds_count", "vllm:time_to_first_token_seconds_count",
    )  # fmt: skip
    steps, stopped = "vllm:iteration_tokens_total_count", {"finished_reason": "stop"}
    before = [engine.metric(name) for name in names]
    stepped, successes = engine.metric(steps), engine.metric("vllm:request_success_total", **stopped)
    usage = engine.chat(TEXT, **scripted("one two three four five"), max_tokens=100).json()["usage"]
    until(lambda: engine.metric("vllm:request_success_total", **stopped) == successes + 1, "the answer is counted")
    moved = [engine.metric(name) - old for name, old in zip(names, before, strict=True)]
    made, prompt = usage["completion_tokens"], usage["prompt_tokens"]
    assert moved == [made, prompt, prompt, 1, 1]
    assert made <= engine.metric(steps) - stepped <= made + 2


def test_requests_are_counted_by_status(engine) -> None:
    chat = {"method": "POST", "handler": "/v1/chat/completions"}
    before = [engine.metric("http_requests_total", **chat, status=status) for status in _provoke(engine)]
    _provoke(engine)
    assert [engine.metric("http_requests_total", **chat, status=status) for status in ("2xx", "4xx")] == [
        number + 1 for number in before
    ]


def _provoke(engine) -> tuple[str, str]:
    assert engine.chat(TEXT).status_code == 200
    assert engine.chat(TEXT, max_tokens=0).status_code == 400
    return "2xx", "4xx"


def test_probes_are_not_counted(engine) -> None:
    for path in ("/health", "/ping", "/version", "/load", "/metrics"):
        assert httpx.get(engine.url + path, timeout=30).status_code == 200
    text = httpx.get(f"{engine.url}/metrics", timeout=30).text
    counted = [line for line in text.splitlines() if line.startswith("http_requests_total{")]
    assert not [line for line in counted if 'handler="/health"' in line or 'handler="/metrics"' in line]
