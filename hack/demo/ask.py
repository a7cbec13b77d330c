"""The model card's Thinking-with-Images call, and its trajectory printed for people."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

CARD_QUESTION = "Please carefully analyze this scientific image."
KEY_VARIABLE = "S1VL_API_KEY"
_CODE = re.compile(r"<code>\s*(?:```(?:python)?\n)?(?P<code>.*?)(?:\n?```)?\s*(?:</code>|\Z)", re.DOTALL)
_WRAPPER = re.compile(r"</?(?:sandbox_output|tool_response|interpreter)>")
_ANSWER = re.compile(r"<answer>(?P<answer>.*?)(?:</answer>|\Z)", re.DOTALL)


class AskError(Exception):
    """The service refused or failed; the message carries its status and its own words."""


def ask(
    url: str, picture: Path, client_path: str, question: str | None = None, api_key: str | None = None
) -> dict[str, Any]:
    """Ask about a picture as the model card does, but for the host.

    Args:
        url: base URL of the service, `http://host:10044`.
        picture: the file to send.
        client_path: the same file's path as the service's clients write it, `/data/images/x.png`.
        question: what to ask; the card's own question without it.
        api_key: a tenant's key, where the service wants one.

    Returns:
        The service's JSON: `messages` with the trajectory, and what else it says.

    Raises:
        AskError: for every answer but 200, and when the service cannot be reached.
        OSError: when the picture cannot be read.
    """
    # From here to `result` this is the card's snippet.
    with picture.open("rb") as f:
        image_b64 = base64.b64encode(f.read()).decode("utf-8")

    messages = [
        {"type": "text", "text": question or CARD_QUESTION},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_b64}"}},
    ]
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/process",
            json={
                "messages": messages,
                "image_path_list": [client_path],
            },
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=300,
        )
    except httpx.TransportError as error:
        raise AskError(f"{url}/process: {type(error).__name__}: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise AskError(f"{url}/process answered {response.status_code}: {response.text[:2000]}")
    result: dict[str, Any] = response.json()
    return result


def final_answer(result: dict[str, Any]) -> str:
    """Return the content of the last message of the assistant, as the card reads it.

    Raises:
        AskError: when there is none.
    """
    spoken = [m for m in result["messages"] if m["role"] == "assistant"]
    if not spoken:
        raise AskError("the trajectory has no message of the assistant")
    return text_of(spoken[-1]["content"])


def text_of(content: object) -> str:
    """Return a message's text; other parts are named in square brackets."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        texts.append(str(part["text"]) if kind == "text" else f"[{kind or 'part'}]")
    return "\n".join(texts)


def show(result: dict[str, Any], console: Console | None = None) -> None:
    """Print a trajectory: thinking, code and results turn by turn, the pictures made, and the answer."""
    out = console or Console()
    turn = 0
    for message in result["messages"]:
        role, text = message["role"], text_of(message["content"])
        if role == "assistant":
            turn += 1
            out.print(Panel(_spoken(text), title=f"turn {turn}: the model", border_style="cyan", title_align="left"))
        elif role in ("tool", "user") and turn:
            plain = escape(_WRAPPER.sub("", text).strip())
            out.print(Panel(plain, title="the sandbox", border_style="yellow", title_align="left"))
        else:
            out.print(Panel(escape(text.strip()), title=role, border_style="dim", title_align="left"))
    for image in result.get("images") or []:
        size = f"{image.get('width')}x{image.get('height')} px"
        out.print(Text(f"picture made on the way: {image.get('path')} ({size})", style="yellow"), soft_wrap=True)
    answer = result.get("answer") or _plain_answer(final_answer(result))
    out.print(Panel(escape(str(answer)), title=_title(result), border_style="green", title_align="left"))


def _title(result: dict[str, Any]) -> str:
    reason = result.get("stop_reason")
    return "answer" if reason in (None, "answer") else f"answer ({reason})"


def _plain_answer(text: str) -> str:
    found = list(_ANSWER.finditer(text))
    return found[-1]["answer"].strip() if found else text.rpartition("</think>")[2].strip()


def _spoken(text: str) -> RenderableType:
    """Return an assistant's message with its thinking dimmed and its code highlighted."""
    thought, closed, said = text.removeprefix("<think>").partition("</think>")
    parts: list[RenderableType] = []
    if closed:
        parts.append(Text(thought.strip(), style="dim italic"))
    rest = said if closed else text
    code = _CODE.search(rest)
    before = (rest[: code.start()] if code else rest).strip()
    if before:
        parts.append(Text(_plain_answer(before)))
    if code:
        parts.append(Syntax(code["code"].strip("\n"), "python", word_wrap=True))
    return Group(*parts)


def main(arguments: list[str]) -> int:
    """Ask from the command line: URL PICTURE CLIENT_PATH [QUESTION]; the key comes from S1VL_API_KEY."""
    if len(arguments) not in (3, 4):
        print("usage: python -m hack.demo.ask URL PICTURE CLIENT_PATH [QUESTION]", file=sys.stderr)
        return 2
    url, picture, client_path = arguments[:3]
    question = arguments[3] if len(arguments) == 4 else None
    try:
        show(ask(url, Path(picture), client_path, question, os.environ.get(KEY_VARIABLE)))
    except (AskError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
