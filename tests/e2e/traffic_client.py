"""Clients that ask one request after another; a program for a pod of its own, with nothing of ours but this file.

Before each request the plan is read: the phase, each tenant's key, and whether to stop. Each answer is a JSON line.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

MODEL = "ScienceOne-AI/S1-VL-32B"
COLOURS = {"red": (214, 32, 38), "green": (30, 168, 62), "blue": (34, 74, 214)}
QUESTION = "What is the colour of the small mark?"
PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 300

Ask = Callable[[str], tuple[int, str, bool]]
"""Asks with a key; returns the status, the answer, and whether it is the right one."""


def picture() -> tuple[str, str]:
    """A picture with one small mark as a data URL, and the mark's colour."""
    colour = random.choice(list(COLOURS))
    made = Image.new("RGB", (640, 480), "white")
    left, top = random.randrange(40, 580), random.randrange(40, 420)
    ImageDraw.Draw(made).rectangle((left, top, left + 19, top + 19), fill=COLOURS[colour])
    out = io.BytesIO()
    made.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}", colour


def process(url: str) -> Ask:
    """The model card's call: a new connection each time."""

    def ask(key: str) -> tuple[int, str, bool]:
        shown, colour = picture()
        parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": shown}}]
        body = {"messages": parts, "image_path_list": []}
        answer = httpx.post(f"{url}/process", json=body, headers={"X-API-Key": key}, timeout=TIMEOUT_SECONDS)
        if answer.status_code != httpx.codes.OK:
            return answer.status_code, answer.text, False
        result = answer.json()
        said = f"{result['stop_reason']}: {result['answer']}"
        return answer.status_code, said, result["stop_reason"] == "answer" and colour in result["answer"]

    return ask


def chat(url: str, *, shows: bool) -> Ask:
    """OpenAI's: one client that keeps its connections; every other answer is streamed."""
    http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)
    streams = itertools.cycle([False, True])

    def ask(key: str) -> tuple[int, str, bool]:
        shown, colour = picture()
        parts: list[dict[str, Any]] = [{"type": "text", "text": QUESTION if shows else "Which gas is it?"}]
        if shows:
            parts.append({"type": "image_url", "image_url": {"url": shown}})
        body = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "stream": next(streams)}
        answer = http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
        if answer.status_code != httpx.codes.OK:
            return answer.status_code, answer.text, False
        said = streamed(answer.text) if body["stream"] else answer.json()["choices"][0]["message"]["content"]
        return answer.status_code, said, bool(said) and (not shows or colour in said)

    return ask


def streamed(text: str) -> str:
    """The content of a stream; "" for one without its end. An error in it is no chunk, and raises KeyError."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return ""
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def follow(name: str, tenant: str, ask: Ask, plan: Path) -> None:
    """Ask until the plan says to stop."""
    while not (now := json.loads(plan.read_text()))["stop"]:
        began = time.monotonic()
        status, right = 0, False
        try:
            status, said, right = ask(now["keys"][tenant])
        except (httpx.HTTPError, ValueError, LookupError) as error:
            said = repr(error)
        seconds = round(time.monotonic() - began, 2)
        line = {"client": name, "phase": now["phase"], "status": status, "right": right, "seconds": seconds}
        # In one piece: other threads write as well.
        sys.stdout.write(json.dumps({**line, "said": said[-300:]}) + "\n")
        sys.stdout.flush()
        time.sleep(PAUSE_SECONDS)


def main(url: str, plan: Path) -> None:
    """Three clients of two tenants at once."""
    while not plan.exists():
        time.sleep(0.2)
    clients = {
        "process": ("chem", process(url)),
        "chat": ("bio", chat(url, shows=True)),
        "plain": ("chem", chat(url, shows=False)),
    }
    with ThreadPoolExecutor(len(clients)) as at_once:
        running = [at_once.submit(follow, name, tenant, ask, plan) for name, (tenant, ask) in clients.items()]
    for client in running:
        client.result()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
