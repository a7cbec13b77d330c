"""The job that the orchestrator's benches run: what the engine says, what the code prints, and the right answer. Pure.

A job looks at one picture in `turns` turns: in all but the last one its code prints the size of the picture's file, and
saves a crop of it unless the job goes without; the last one answers with the job's number, the size that was printed,
and how many pictures the prompt had. An answer is right only if the right picture reached the right kernel and every
picture reached the engine.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

MODEL = "ScienceOne-AI/S1-VL-32B"
CROP_SIDE = 384
PIECE = 4
"""Characters of one event: about a token."""

_THOUGHT = (
    "The picture is large and what the question asks for is small, so I do not trust what I see at this scale. "
    "I cut region {turn} out of the file at its full resolution, save it, look at it again and print how large the "
    "file is, because that is what the question wants to know."
)
_JOB = re.compile(rb"job=(\d+) turns=(\d+) crops=(yes|no)")
_VALUE = re.compile(rb"value=(\d+)")


def question(job: int, turns: int, *, crops: bool = True) -> str:
    """What the client asks."""
    wanted = f"job={job} turns={turns} crops={'yes' if crops else 'no'}"
    return f"Look closely at this picture and say how large its file is. {wanted}"


def code(turn: int, *, crops: bool = True) -> str:
    """The code of a turn, which every kernel that knows `image_path` and `output_dir` can run."""
    left = 32 * turn
    lines = [
        "import os",
        "from PIL import Image",
        f"crop = Image.open(image_path).crop(({left}, {left}, {left + CROP_SIDE}, {left + CROP_SIDE}))",
        f'file = os.path.join(output_dir, "crop_{turn}.png")',
        "crop.save(file)",
        "print(file)",
    ]
    if not crops:
        lines = [*lines[:2], f"print('look', {turn}, Image.open(image_path).size)"]
    return "\n".join([*lines, 'print("value=%d" % os.path.getsize(image_path))'])


def answer(job: int, size: int | None, pictures: int) -> str:
    """The right answer."""
    return f"job {job}: the file has {size} bytes, {pictures} pictures were looked at"


@dataclass(frozen=True)
class Asked:
    """What the engine reads in a request.

    Attributes:
        job: The job's number; 0 when the prompt has none.
        turn: From 1.
        turns: How many the job is to have.
        size: Bytes of the picture's file, as the last code printed them.
        crops: The code saves crops.
    """

    job: int
    turn: int
    turns: int
    size: int | None = None
    crops: bool = True


def read_prompt(body: bytes) -> Asked:
    """Read a request. Searched, not parsed: one with pictures as base64 has many MB."""
    found = _JOB.search(body)
    job, turns = (int(found[1]), int(found[2])) if found else (0, 1)
    # The results stand at the end, behind all base64 of the first message.
    values = _VALUE.findall(body, max(0, len(body) - 4096)) or _VALUE.findall(body)
    size = int(values[-1]) if values else None
    return Asked(job, body.count(b'"role":"assistant"') + 1, turns, size, crops=found is None or found[3] == b"yes")


def count_pictures(body: bytes) -> int:
    """Pictures in a request."""
    return body.count(b'"type":"image_url"')


def said(asked: Asked, pictures: int) -> tuple[str, str]:
    """What the engine says: reasoning and content."""
    thought = _THOUGHT.format(turn=asked.turn)
    if asked.turn < asked.turns:
        return thought, f"\n\n<code>\n```python\n{code(asked.turn, crops=asked.crops)}\n```\n</code>"
    return thought, f"\n\n<answer>{answer(asked.job, asked.size, pictures)}</answer>"


def stream_of(reasoning: str, content: str) -> bytes:
    """The same as vLLM streams it, one event for about each token."""
    pieces = [("reasoning", reasoning[at : at + PIECE]) for at in range(0, len(reasoning), PIECE)]
    pieces += [("content", content[at : at + PIECE]) for at in range(0, len(content), PIECE)]
    events = [_event({"role": "assistant", "content": ""}, 0)]
    events += [_event({name: piece}, number) for number, (name, piece) in enumerate(pieces, 1)]
    events.append(_event({"content": ""}, len(pieces), "stop"))
    return b"".join(events) + b"data: [DONE]\n\n"


@lru_cache(maxsize=64)
def stream_of_code(turn: int, *, crops: bool) -> bytes:
    """The stream of a turn with code, which is the same for every job."""
    return stream_of(*said(Asked(0, turn, turn + 1, crops=crops), 0))


def whole(reasoning: str, content: str) -> bytes:
    """The same as vLLM answers a request that is not streamed."""
    message = {"role": "assistant", "content": content, "reasoning": reasoning, "reasoning_content": reasoning}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None}
    tokens = (len(reasoning) + len(content)) // PIECE
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
    return json.dumps({**_head("chat.completion"), "choices": [choice], "usage": usage}).encode()


PROMPT_TOKENS = 4000


def _event(delta: dict[str, str], count: int, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS + count, "completion_tokens": count}
    event = {**_head("chat.completion.chunk"), "choices": [choice], "usage": usage}
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": kind, "created": 1764000000, "model": MODEL}


def photo(width: int, height: int) -> bytes:
    """A JPEG with soft shapes, fine lines and the noise of a sensor: about 3 bits a px, as a camera's."""
    return _encode(_shapes(width, height, 40), "JPEG", quality=90)


def scan(width: int, height: int, size: int) -> bytes:
    """A PNG with soft shapes and noise, in a file of `size` bytes, some of which may lie behind its end.

    Raises:
        ValueError: If `size` is less than the picture takes without noise.
    """
    best = b""
    for levels in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        content = _encode(_shapes(width, height, levels), "PNG", compress_level=1)
        if len(content) > size:
            break
        best = content
    if not best:
        raise ValueError(f"{width}x{height} px do not fit into {size} bytes")
    return best + bytes(size - len(best))


def _shapes(width: int, height: int, levels: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    shapes = 110 + 60 * np.sin(columns / 61) * np.cos(rows / 47) + 30 * np.sin((rows + columns) / 211)
    noise = np.random.default_rng(20261124).integers(0, levels, (height, width, 3))
    return Image.fromarray((shapes[..., None] + noise).clip(0, 255).astype(np.uint8))


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@lru_cache(maxsize=32)
def crop(turn: int) -> bytes:
    """What the stand-in for a kernel saves in a turn: each another picture."""
    return _encode(_shapes(CROP_SIDE, CROP_SIDE + turn, 4), "PNG")


def request_body(job: int, turns: int, encoded: bytes, path: str = "", *, crops: bool = True) -> bytes:
    """The model card's request: the picture embedded, and named as well where it is on the volume.

    Args:
        job: Its number.
        turns: How many turns it is to have.
        encoded: The picture as base64.
        path: The picture's path as the client knows it.
        crops: Its code saves crops.
    """
    text = json.dumps({"type": "text", "text": question(job, turns, crops=crops)})
    before = f'{{"messages": [{text}, {{"type": "image_url", "image_url": {{"url": "data:image/png;base64,'
    after = f'"}}}}], "image_path_list": {json.dumps([path] if path else [])}}}'
    return before.encode() + encoded + after.encode()


def told(result: dict[str, Any]) -> str:
    """The answer as the model card's client reads it: the last message whose role is assistant."""
    texts = [message["content"] for message in result["messages"] if message["role"] == "assistant"]
    return str(texts[-1])
