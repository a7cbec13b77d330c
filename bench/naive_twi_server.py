"""What anyone would write from the model card in an afternoon: FastAPI, httpx and Pillow, as its "twi_server.py".

The paths at the top, `POST /process` on port 10044, the loop of the card: ask the model, run its code in the sandbox's
Jupyter, show it what came out, until it answers. It is right, and it is what the orchestrator is measured against:

- a new `httpx.AsyncClient` for every call, as most snippets do;
- the pictures are files, read and base64-encoded again for every turn, at full size;
- a session of the sandbox for every job, opened when it comes and deleted when it is done;
- the engine's answer is awaited whole, with a stop string at the end of the code.

It does not check what it is sent, keeps no budget, and tries nothing twice. With `KEEP_CLIENT=1` it has one client for
all calls, to show how much of its time the first of these points takes.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel

MODEL = os.environ.get("MODEL", "ScienceOne-AI/S1-VL-32B")
CHAT_API = os.environ.get("CHAT_API", "http://localhost:9200/v1/chat/completions")
JUPYTER_API = os.environ.get("JUPYTER_API", "http://localhost:18081/v1/jupyter")
HOST_IMG_DIR = os.environ.get("HOST_IMG_DIR", "/data/images")
SANDBOX_IMG_DIR = os.environ.get("SANDBOX_IMG_DIR", "/mnt/data/images")
KEEP_CLIENT = os.environ.get("KEEP_CLIENT") == "1"
MAX_TURNS = 8

SYSTEM_PROMPT = """You can think with images. To run Python code, write
<code>
```python
...
```
</code>
and stop. The code runs in a Jupyter kernel. image_path is the path of the first image, image_paths are the paths of
all; save new images into output_dir. You get the output between <sandbox_output> and </sandbox_output>.
When you are sure, write the answer between <answer> and </answer>."""

app = FastAPI()
kept: list[httpx.AsyncClient] = []


@asynccontextmanager
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client for one call, or the one for all of them."""
    if not KEEP_CLIENT:
        async with httpx.AsyncClient(timeout=300) as client:
            yield client
        return
    if not kept:
        kept.append(httpx.AsyncClient(timeout=300))
    yield kept[0]


class ProcessRequest(BaseModel):
    """The card's body: content parts, and the pictures' paths on the host."""

    messages: list[dict[str, Any]]
    image_path_list: list[str] = []


def image_part(path: str) -> dict[str, Any]:
    """A picture for the model."""
    content = Path(path).read_bytes()
    kind = Image.open(io.BytesIO(content)).format or "PNG"
    url = f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def render(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for the model: paths become pictures."""
    rendered = []
    for message in messages:
        parts = message["content"]
        if isinstance(parts, list):
            parts = [image_part(part["path"]) if part["type"] == "path" else part for part in parts]
        rendered.append({"role": message["role"], "content": parts})
    return rendered


async def chat(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """Ask the model; returns its thinking and what it said after it."""
    body = {
        "model": MODEL,
        "messages": render(messages),
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 8192,
        "stop": ["</code>"],
        "include_stop_str_in_output": True,
    }
    async with http() as client:
        response = await client.post(CHAT_API, json=body)
        response.raise_for_status()
    message = response.json()["choices"][0]["message"]
    return message.get("reasoning") or message.get("reasoning_content") or "", message.get("content") or ""


async def jupyter(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the sandbox."""
    async with http() as client:
        response = await client.request(method, f"{JUPYTER_API}{path}", json=body)
        response.raise_for_status()
    return response.json()["data"] or {}


async def run(session: str, code: str) -> str:
    """Run code and return what it printed."""
    data = await jupyter("POST", "/execute", {"session_id": session, "code": code, "timeout": 30})
    texts = []
    for output in data["outputs"]:
        if output["output_type"] == "stream":
            texts.append(output["text"])
        elif output["output_type"] == "error":
            texts.append("\n".join(output["traceback"]))
        elif "text/plain" in output.get("data", {}):
            texts.append(output["data"]["text/plain"])
    return "".join(texts)


def to_sandbox(path: str) -> str:
    """The path in the sandbox."""
    return path.replace(HOST_IMG_DIR, SANDBOX_IMG_DIR, 1)


@app.post("/process")
async def process(request: ProcessRequest) -> dict[str, Any]:
    """Run one job."""
    job = uuid.uuid4().hex
    output = Path(HOST_IMG_DIR) / "temp" / job
    output.mkdir(parents=True)
    output.chmod(0o777)
    paths = list(request.image_path_list)
    if not paths:
        for number, part in enumerate(part for part in request.messages if part["type"] == "image_url"):
            path = output / f"input_{number}.png"
            path.write_bytes(base64.b64decode(part["image_url"]["url"].split(",", 1)[1]))
            paths.append(str(path))
    text = "\n".join(part["text"] for part in request.messages if part["type"] == "text")
    listed = "\n".join(f"Image {number}: {to_sandbox(path)}" for number, path in enumerate(paths, 1))
    question = [*({"type": "path", "path": path} for path in paths), {"type": "text", "text": f"{text}\n\n{listed}"}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": question},
    ]
    await jupyter("POST", "/sessions/create", {"session_id": job, "cwd": to_sandbox(str(output))})
    try:
        names = [to_sandbox(path) for path in paths]
        await run(job, f"image_paths = {names!r}\nimage_path = {names[0]!r}\noutput_dir = {to_sandbox(str(output))!r}")
        for _ in range(MAX_TURNS):
            reasoning, content = await chat(messages)
            messages.append({"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{content}"})
            code = re.search(r"<code>\s*```(?:python)?\n(.*?)```\s*</code>", f"{reasoning}{content}", re.DOTALL)
            if code is None:
                break
            before = set(output.iterdir())
            printed = await run(job, code[1])
            made = sorted(str(path) for path in set(output.iterdir()) - before)
            result = {"type": "text", "text": f"<sandbox_output>\n{printed}\n</sandbox_output>"}
            messages.append({"role": "user", "content": [result, *({"type": "path", "path": path} for path in made)]})
        else:
            messages.append({"role": "user", "content": "No more code can be run. Give your final answer."})
            content = (await chat(messages))[1]
            messages.append({"role": "assistant", "content": content})
    finally:
        await jupyter("DELETE", f"/sessions/{job}")
    found = re.search(r"<answer>(.*?)</answer>", content, re.DOTALL)
    messages[-1]["content"] = found[1].strip() if found else content
    return {"messages": messages[1:]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 10044)
