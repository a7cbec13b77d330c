"""What vLLM's HTTP API was seen to do. Runs against the simulator, or with VLLM_URL against a real one.

A real vLLM has to be started like the fixture starts the simulator (with random weights the answers are scripted by
`structured_outputs`; the bias makes its `</think>` one token).
"""

from __future__ import annotations

import json
import uuid as uuids
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

TEXT = {"type": "text", "text": "What is this?"}
SCRIPTED = "look closer</think>\n<code>\n```python\nprint(1)\n```\n</code>"


def scripted(text: str = SCRIPTED) -> dict[str, Any]:
    return {"structured_outputs": {"choice": [text]}, "logit_bias": {"4095": 100}, "max_tokens": 400}


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    return dict(error)


def read_stream(engine: Any, **fields: Any) -> list[dict[str, Any]]:
    body = {
        "model": "ScienceOne-AI/S1-VL-32B", "messages": [{"role": "user", "content": [TEXT]}], "stream": True, **fields
    }  # fmt: skip
    with httpx.stream("POST", f"{engine.url}/v1/chat/completions", json=body, timeout=120) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_has_vllms_fields(engine, image) -> None:
    answer = engine.chat(TEXT, image(), **scripted()).json()
    choice = answer["choices"][0]
    assert {"role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"} <= set(
        choice["message"]
    )
    assert "reasoning_content" not in choice["message"]
    assert choice["message"]["reasoning"] == "look closer"
    assert choice["message"]["content"] == "\n<code>\n```python\nprint(1)\n```\n</code>"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] is None
    assert "reasoning_tokens" in usage["completion_tokens_details"]


def test_without_the_end_of_thinking_all_is_reasoning(engine) -> None:
    message = engine.chat(TEXT, **scripted("look\n<code>\nprint(1)\n</code>")).json()["choices"][0]["message"]
    assert message["reasoning"] == "look\n<code>\nprint(1)\n</code>"
    assert message["content"] is None


@pytest.mark.parametrize(("width", "height", "tokens"), [(64, 64, 64), (1024, 768, 768), (1, 1, 64)])
def test_image_tokens_are_counted(engine, image, width: int, height: int, tokens: int) -> None:
    plain = engine.chat(TEXT).json()["usage"]["prompt_tokens"]
    with_image = engine.chat(TEXT, image(width, height)).json()["usage"]["prompt_tokens"]
    assert with_image - plain == tokens + 2


def test_tokenize_counts_like_chat(engine, image) -> None:
    part = image(300, 200)
    used = engine.chat(TEXT, part).json()["usage"]["prompt_tokens"]
    body = {"model": "ScienceOne-AI/S1-VL-32B", "messages": [{"role": "user", "content": [TEXT, part]}]}
    answer = httpx.post(f"{engine.url}/tokenize", json=body, timeout=60).json()
    assert (answer["count"], answer["max_model_len"], answer["token_strs"]) == (used, 32768, None)
    assert len(answer["tokens"]) == used


def test_a_file_below_the_allowed_path_is_read(engine, png_bytes) -> None:
    path = engine.media / f"{uuids.uuid4().hex}.png"
    path.write_bytes(png_bytes)
    assert engine.chat(TEXT, {"type": "image_url", "image_url": {"url": f"file://{path}"}}).status_code == 200


SUBPATH = "The file path <path> must be a subpath of `--allowed-local-media-path <path>`."
MISSING = "[Errno 2] No such file or directory: '<path>'"
NOT_AN_IMAGE = "Failed to load image: cannot identify image file <_io.BytesIO object>"


def _link_outside(media: Path) -> str:
    link = media / f"link-{uuids.uuid4().hex}"
    link.symlink_to("/etc/hostname")
    return f"file://{link}"


def _text_file(media: Path) -> str:
    path = media / f"{uuids.uuid4().hex}.txt"
    path.write_text("not an image")
    return f"file://{path}"


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        pytest.param(lambda media: "file:///etc/hostname", 400, SUBPATH, id="outside"),
        pytest.param(lambda media: f"file://{media}/../../etc/hostname", 400, SUBPATH, id="dots"),
        pytest.param(_link_outside, 400, SUBPATH, id="symlink"),
        pytest.param(lambda media: f"file://host{media}/x.png", 400, SUBPATH, id="host"),
        pytest.param(lambda media: f"file://{media}/absent.png", 500, MISSING, id="absent"),
        pytest.param(_text_file, 400, NOT_AN_IMAGE, id="no image in the file"),
        pytest.param(lambda media: "data:image/png;base64,aGVsbG8=", 400, NOT_AN_IMAGE, id="no image in base64"),
        pytest.param(
            lambda media: f"{media}/x.png", 400, "The URL must be either a HTTP, data or file URL.", id="path"
        ),
    ],
)
def test_images_that_are_refused(engine, url: Callable[[Path], str], status: int, message: str) -> None:
    response = engine.chat(TEXT, {"type": "image_url", "image_url": {"url": url(engine.media)}})
    error = error_of(response, status)
    assert error["message"] == message
    assert error["type"] == ("BadRequestError" if status == 400 else "InternalServerError")


def test_a_long_thin_image_is_refused(engine, image) -> None:
    assert error_of(engine.chat(image(1, 300)))["message"].startswith("Failed to apply Qwen3VLProcessor on data=")


def test_fifteen_images_are_taken_and_sixteen_refused(engine, image) -> None:
    part = image()
    assert engine.chat(TEXT, *[part] * 15).status_code == 200
    error = error_of(engine.chat(TEXT, *[part] * 16))
    assert error["message"] == "At most 15 image(s) may be provided in one prompt. (parameter=image)"
    assert error["param"] == "image"


def test_images_are_counted_over_the_history(engine, image) -> None:
    messages = [
        {"role": "user", "content": [image()] * 8},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [image()] * 8},
    ]
    assert error_of(engine.chat(messages=messages))["param"] == "image"


def test_a_video_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, {"type": "video_url", "video_url": {"url": "file:///x.mp4"}}))
    assert error["message"] == "At most 0 video(s) may be provided in one prompt. (parameter=video)"


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_over_the_context_is_refused(engine, stream: bool) -> None:
    error = error_of(engine.chat(TEXT, max_tokens=40000, stream=stream))
    assert error["message"] == (
        "max_tokens=40000 cannot be greater than max_model_len=32768. Please request fewer output tokens. "
        "(parameter=max_tokens, value=40000)"
    )


def test_max_tokens_of_nothing_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, max_tokens=0))
    assert error["message"] == "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"


def test_max_completion_tokens_counts_as_max_tokens(engine) -> None:
    answer = engine.chat(TEXT, max_completion_tokens=2).json()
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"


def test_prompt_and_max_tokens_over_the_context_are_cut(engine, image) -> None:
    part = image(4096, 4096)  # 16,384 tokens
    filler = image(3840, 4096)  # 15,360 tokens
    used = engine.chat(TEXT, part, filler).json()["usage"]["prompt_tokens"]
    answer = engine.chat(TEXT, part, filler, max_tokens=32768, **{"ignore_eos": True}).json()
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["completion_tokens"] <= 32768 - used


def test_too_much_text_is_refused(engine) -> None:
    error = error_of(engine.chat({"type": "text", "text": "1 " * 40000}))
    assert error["message"] == (
        "This model's maximum context length is 32768 tokens. However, your prompt contains at least 32769 input "
        "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        "prompt. (parameter=input_tokens, value=32769)"
    )


def test_too_many_image_tokens_are_refused(engine, image) -> None:
    error = error_of(engine.chat(TEXT, *[image(4096, 4096)] * 3))
    assert error["message"].startswith("Input length (")
    assert error["message"].endswith(") exceeds model's maximum context length (32768).")
    assert error["param"] is None


@pytest.mark.parametrize("text", [SCRIPTED, "look\n<code>\nprint(1)\n</code> and more"])
def test_a_stop_string_is_kept_where_asked(engine, text: str) -> None:
    fields = {**scripted(text), "stop": ["</code>"], "include_stop_str_in_output": True}
    choice = engine.chat(TEXT, **fields).json()["choices"][0]
    message = choice["message"]
    assert ((message["reasoning"] or "") + (message["content"] or "")).endswith("</code>")
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "</code>")


def test_a_stop_string_is_dropped_otherwise(engine) -> None:
    choice = engine.chat(TEXT, **scripted(), stop=["</code>"]).json()["choices"][0]
    assert choice["message"]["content"] == "\n<code>\n```python\nprint(1)\n```\n"
    assert choice["stop_reason"] == "</code>"


def test_a_stream_has_vllms_chunks(engine) -> None:
    fields = {**scripted(), "stop": ["</code>"], "include_stop_str_in_output": True}
    chunks = read_stream(engine, **fields, stream_options={"include_usage": True})
    first, *middle, last, usage = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [chunk["choices"][0]["delta"] for chunk in [*middle, last]]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == "look closer"
    content = "".join(delta.get("content") or "" for delta in deltas)
    assert content == "\n<code>\n```python\nprint(1)\n```\n</code>"
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("stop", "</code>")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0


def test_a_stream_counts_while_it_is_said(engine) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = read_stream(engine, **scripted(), stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2] > 2
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {chunks[-1]["usage"]["prompt_tokens"]}
    alone = read_stream(engine, **scripted(), stream_options={"continuous_usage_stats": True})
    assert not any(chunk.get("usage") for chunk in alone)


def test_a_stream_without_its_stop_string_loses_text_at_the_end_of_thinking(engine) -> None:
    chunks = read_stream(engine, **scripted("hello world</think>\n<code>\nprint(1)\n</code>"), stop=["</code>"])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) != "hello world"


def test_an_image_is_known_by_its_uuid(engine, image) -> None:
    name = uuids.uuid4().hex
    assert engine.chat(TEXT, image(uuid=name), cache_salt="s").status_code == 200
    again = engine.chat(TEXT, {"type": "image_url", "image_url": None, "uuid": name}, cache_salt="s")
    assert again.status_code == 200


def test_an_unknown_uuid_is_a_cache_miss(engine) -> None:
    error = error_of(engine.chat(TEXT, {"type": "image_url", "image_url": None, "uuid": uuids.uuid4().hex}))
    assert error["message"] == "Cache miss for image at index 0 but data is not provided."


def test_an_empty_salt_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, cache_salt=""))
    assert error["message"] == "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)"


def test_an_unknown_field_is_ignored(engine) -> None:
    assert engine.chat(TEXT, no_such_field=1).status_code == 200


def test_an_unknown_model_is_not_found(engine) -> None:
    error = error_of(engine.chat(TEXT, model="nope"), 404)
    assert error["message"] == "The model `nope` does not exist. Valid aliases: ScienceOne-AI/S1-VL-32B."
    assert (error["type"], error["param"]) == ("NotFoundError", "model")


def test_no_messages_are_refused(engine) -> None:
    error = error_of(engine.chat(messages=[]))
    assert error["message"] == "Cannot apply chat template to an empty conversation. Provide at least one message."


def test_broken_json_is_refused(engine) -> None:
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{engine.url}/v1/chat/completions", content="{", headers=headers, timeout=30)
    error = error_of(response)
    assert error["type"] == "Bad Request"
    assert error["message"].startswith("1 validation error:")


def test_reasoning_can_be_left_out(engine) -> None:
    message = engine.chat(TEXT, **scripted(), include_reasoning=False).json()["choices"][0]["message"]
    assert message["reasoning"] is None
    assert message["content"] == "\n<code>\n```python\nprint(1)\n```\n</code>"


def test_two_kinds_of_constraint_are_refused(engine) -> None:
    error_of(engine.chat(TEXT, structured_outputs={"choice": ["a"], "regex": "a"}))


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_is_empty(engine, path: str) -> None:
    response = httpx.get(engine.url + path, timeout=30)
    assert (response.status_code, response.content) == (200, b"")
    assert "content-type" not in response.headers


def test_models_and_load(engine) -> None:
    models = httpx.get(f"{engine.url}/v1/models", timeout=30).json()
    card = models["data"][0]
    assert models["object"] == "list"
    assert (card["id"], card["max_model_len"], card["owned_by"]) == ("ScienceOne-AI/S1-VL-32B", 32768, "vllm")
    assert httpx.get(f"{engine.url}/load", timeout=30).json() == {"server_load": 0}
    assert set(httpx.get(f"{engine.url}/version", timeout=30).json()) == {"version"}


@pytest.mark.parametrize(
    "name",
    [
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
        "vllm:kv_cache_usage_perc", "vllm:iteration_tokens_total_count", "vllm:generation_tokens_total",
        "vllm:prompt_tokens_total", "vllm:num_preemptions_total", "vllm:request_success_total",
        "vllm:admission_rejections_total", "vllm:engine_sleep_state", "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total", "vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total",
        "vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count",
        "vllm:e2e_request_latency_seconds_count", "vllm:request_queue_time_seconds_count", "http_requests_total",
    ],
)  # fmt: skip
def test_series_have_vllms_names(engine, name: str) -> None:
    httpx.get(f"{engine.url}/health", timeout=30)
    labels = {} if name == "http_requests_total" else {"model_name": "ScienceOne-AI/S1-VL-32B", "engine": "0"}
    assert engine.metric(name, **labels) >= 0


def test_counters_move_with_the_tokens(engine) -> None:
    names = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total")
    before = [engine.metric(name) for name in names]
    usage = engine.chat(TEXT, max_tokens=20).json()["usage"]
    made, prompt = usage["completion_tokens"], usage["prompt_tokens"]
    steps, generated, prompted = (engine.metric(name) - old for name, old in zip(names, before, strict=True))
    assert (steps, generated, prompted) == (made, made, prompt)


def test_prefixes_are_found_again_only_under_the_same_salt(engine) -> None:
    long = {"type": "text", "text": f"{uuids.uuid4().hex} " + "the same words again and again " * 40}
    hits = []
    for salt in ("a", "a", "b"):
        before = engine.metric("vllm:prefix_cache_hits_total")
        engine.chat(long, cache_salt=salt)
        hits.append(engine.metric("vllm:prefix_cache_hits_total") - before)
    assert hits[1] >= 16
    assert hits[1] > hits[0]
    assert hits[2] < hits[1]
