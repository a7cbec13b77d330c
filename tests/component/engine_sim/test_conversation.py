"""A whole Thinking-with-Images dialogue over HTTP: code out, result and crop in, a computed answer out."""

from __future__ import annotations

import base64
import contextlib
import io
from pathlib import Path
from typing import Any

import httpx
import pytest

from hack.demo import picture

SYSTEM = "To run code write it between <code> and </code> and stop. Finish with <answer> and </answer>."


def say(engine: Any, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = {
        "messages": messages, "stop": ["</code>"], "include_stop_str_in_output": True, "max_tokens": 4096,
        "cache_salt": "tenant",
    }  # fmt: skip
    response = httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0])


@pytest.mark.parametrize("colour", ["green", "magenta"])
def test_the_mark_of_a_large_picture_is_named(start, colour: str) -> None:
    engine = start()
    file: Path = engine.media / "micrograph.png"
    truth = picture.write(file, 5, colour)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Please carefully analyze this scientific image."},
                {"type": "image_url", "image_url": {"url": f"file://{file}"}, "uuid": "input"},
            ],
        },
    ]
    first = say(engine, messages)
    assert first["stop_reason"] == "</code>"
    content = first["message"]["content"]
    code = content.split("```python\n")[1].split("\n```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"image_path": str(file), "output_dir": str(engine.media)})
    crop = base64.b64encode((engine.media / "mark_crop.png").read_bytes()).decode()
    messages[1]["content"][1]["image_url"] = None
    messages += [
        {"role": "assistant", "content": f"<think>\n{first['message']['reasoning']}</think>{content}"},
        {
            "role": "tool",
            "content": [
                {"type": "text", "text": f"<sandbox_output>\n{printed.getvalue()}"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{crop}"}, "uuid": "crop"},
                {"type": "text", "text": "\n</sandbox_output>"},
            ],
        },
    ]
    second = say(engine, messages)
    assert f"<answer>The small mark is {truth.colour}." in second["message"]["content"]
    assert str(truth.box[:2]) in second["message"]["content"]
    turn_1, turn_2 = httpx.get(f"{engine.url}/sim/requests", timeout=10).json()
    before = turn_1["prompt_tokens"] + turn_1["completion_tokens"]
    assert before - 32 < turn_2["cached_tokens"] <= before  # the prompt of turn 2 continues turn 1 token by token
