"""What a cell gave back, as text for the model and as candidates for pictures. Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass

from s1vl_orchestrator.sandbox import Cell

TRACEBACK_LINES = 10
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_PATH = re.compile(r"""[^\s'"<>|:*?()\[\]{},;=]+\.(?:png|jpe?g|webp|gif|bmp|tiff?)\b""", re.IGNORECASE)
_MAX_PATHS = 64
_MAX_DISPLAYED = 16
_MAX_BASE64 = 28 * 1024 * 1024


@dataclass(frozen=True)
class CellOutput:
    """One cell's output.

    Attributes:
        text: stdout, stderr, results and the error, in order, without terminal colours, cut to a limit.
        printed_paths: What looks like a picture's path, in order, once each.
        displayed: Pictures shown with display() or plt.show(), encoded.
    """

    text: str
    printed_paths: tuple[str, ...]
    displayed: tuple[bytes, ...]


def read_cell(cell: Cell, limit: int) -> CellOutput:
    """Read the outputs; whatever their form, they come from hostile code.

    Args:
        cell: The cell.
        limit: Most characters of text; what is over is cut out of the middle.
    """
    texts: list[str] = []
    displayed: list[bytes] = []
    for output in cell.outputs:
        kind = output.get("output_type")
        if kind == "stream":
            texts.append(_text(output.get("text")))
        elif kind in ("execute_result", "display_data"):
            data = output.get("data")
            data = data if isinstance(data, dict) else {}
            picture = _picture(data)
            if picture is not None:
                displayed.append(picture)
            elif "text/plain" in data:
                texts.append(_text(data["text/plain"]) + "\n")
        elif kind == "error":
            texts.append(_error(output))
    # Hostile code can print lone surrogates, which cannot travel on as UTF-8.
    text = _ANSI.sub("", "".join(texts)).strip("\n").encode(errors="replace").decode()
    paths = dict.fromkeys(match[0] for match in _PATH.finditer(text[:200_000]))
    return CellOutput(head_tail(text, limit), tuple(paths)[:_MAX_PATHS], tuple(displayed[:_MAX_DISPLAYED]))


def head_tail(text: str, limit: int) -> str:
    """Cut the middle out of a text that is longer than `limit` characters, and say how much."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _picture(data: dict[str, object]) -> bytes | None:
    for mime in ("image/png", "image/jpeg"):
        encoded = _text(data.get(mime))
        if encoded and len(encoded) <= _MAX_BASE64:
            try:
                return b64decode(encoded)
            except (Base64Error, ValueError):
                return None
    return None


def _error(output: dict[str, object]) -> str:
    lines = output.get("traceback")
    joined = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
    trace = _ANSI.sub("", joined).splitlines()[-TRACEBACK_LINES:]
    last = f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
    if not trace or last.strip() not in trace[-1]:
        trace.append(last)
    return "\n".join(trace) + "\n"


def _text(value: object) -> str:
    # Jupyter allows a list of lines wherever it allows a text.
    if isinstance(value, list):
        return "".join(map(str, value))
    return value if isinstance(value, str) else ""
