"""Bounds on what one cell may return. Pure: no sockets, no clock.

Two places use them. The kernel process cuts its own text and images, so that an honest flood (a loop that prints)
costs nothing on the wire and the last lines survive. The server cuts again, because a hostile cell can bypass
whatever runs in its own process.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

Output = dict[str, Any]


@dataclass(frozen=True)
class OutputLimits:
    """Bounds for one cell.

    Attributes:
        text_chars: Characters of stdout, stderr, results and tracebacks together.
        outputs: Number of entries in ``outputs``; consecutive writes to one stream are one entry.
        rich_chars: Characters of all other MIME data together (images are base64: 4/3 of their bytes).
        message_bytes: Largest single message taken from a kernel; ZeroMQ drops the connection above it.
        flood_bytes: Received bytes per cell above which the kernel is killed instead of listened to.
    """

    text_chars: int = 256 * 1024
    outputs: int = 200
    rich_chars: int = 28 * 1024 * 1024
    message_bytes: int = 32 * 1024 * 1024
    flood_bytes: int = 64 * 1024 * 1024


class HeadTail:
    """Lets the beginning of a text through at once and keeps its end for later.

    Three quarters of ``limit`` pass through :meth:`write`; of what follows only the last quarter is remembered.
    """

    def __init__(self, limit: int) -> None:
        self._tail_limit = limit // 4
        self._head_left = limit - self._tail_limit
        self._tail: deque[str] = deque()
        self._tail_chars = 0
        self._after_head = 0

    def write(self, text: str) -> str:
        """Take ``text`` and return the part of it that may be shown now (possibly empty)."""
        head = text[: self._head_left]
        self._head_left -= len(head)
        self._after_head += len(text) - len(head)
        # Slice from the end first: the middle of a huge text must not be copied.
        rest = text[max(len(head), len(text) - self._tail_limit) :]
        if rest:
            self._tail.append(rest)
            self._tail_chars += len(rest)
            while self._tail_chars - len(self._tail[0]) >= self._tail_limit:
                self._tail_chars -= len(self._tail.popleft())
        return head

    @property
    def missing(self) -> int:
        """Characters in the middle that are lost by now."""
        return max(0, self._after_head - self._tail_limit)

    def finish(self) -> str:
        """Return the remembered end, preceded by a notice when text in the middle is missing."""
        joined = "".join(self._tail)
        tail = joined[max(0, len(joined) - self._tail_limit) :]
        self._tail.clear()
        self._tail_chars = 0
        missing, self._after_head = self._after_head - len(tail), 0
        return f"\n{notice(missing)}\n{tail}" if missing else tail


def notice(missing: int) -> str:
    """The line that stands for ``missing`` characters."""
    return f"[output truncated: {missing} characters left out]"


def cut(text: str, limit: int) -> str:
    """Return ``text`` with its middle replaced by a notice when it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    keep_head, keep_tail = limit - limit // 4, limit // 4
    return f"{text[:keep_head]}\n{notice(len(text) - keep_head - keep_tail)}\n{text[len(text) - keep_tail :]}"


def cut_traceback(lines: list[str], limit: int) -> list[str]:
    """Return a traceback whose lines together have about ``limit`` characters: each line cut, middle lines dropped."""
    per_line = max(200, limit // 4)
    cut_lines = [cut(line, per_line) for line in lines]
    if sum(map(len, cut_lines)) <= limit:
        return cut_lines
    head: list[str] = []
    # The last lines name the exception; the first one where the cell called into it.
    tail = [cut_lines[-1]] if cut_lines else []
    left = limit - sum(map(len, tail))
    for line in cut_lines[:-1]:
        if len(line) > left:
            break
        head.append(line)
        left -= len(line)
    return [*head, f"[{len(lines) - len(head) - len(tail)} lines left out]", *tail]


def cut_mime(data: dict[str, Any], text_limit: int, rich_limit: int) -> tuple[dict[str, Any], bool]:
    """Bound a MIME bundle: ``text/plain`` is cut, anything else too large is replaced by a notice.

    Returns:
        The bundle and whether something was cut.
    """
    bounded: dict[str, Any] = {}
    notes: list[str] = []
    for mime, value in data.items():
        if mime == "text/plain" and isinstance(value, str):
            bounded[mime] = cut(value, text_limit)
            if bounded[mime] is not value:
                notes.append("")
            continue
        size = _size(value)
        limit = text_limit if mime.startswith("text/") else rich_limit
        if size > limit:
            notes.append(f"[{mime} of {size} characters left out: the limit is {limit}]")
        else:
            bounded[mime] = value
    text = "\n".join(note for note in notes if note)
    if text:
        bounded["text/plain"] = "\n".join(filter(None, [bounded.get("text/plain", ""), text]))
    return bounded, bool(notes)


def _size(value: Any) -> int:
    """Characters that a value has on the wire."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, bytes | bytearray):
        return (len(value) + 2) // 3 * 4  # it will be base64
    return len(repr(value))


@dataclass
class OutputCollector:
    """Turns the IOPub messages of one cell into bounded ``outputs`` entries of the Jupyter format."""

    limits: OutputLimits
    outputs: list[Output] = field(default_factory=list)
    truncated: bool = False
    error: Output | None = None
    _text_left: int = field(init=False)
    _rich_left: int = field(init=False)
    _clear_pending: bool = False

    def __post_init__(self) -> None:
        self._text_left = self.limits.text_chars
        self._rich_left = self.limits.rich_chars

    def add(self, msg_type: str, content: dict[str, Any]) -> None:
        """Take one message; types that show nothing are ignored."""
        if msg_type == "clear_output":
            self._clear_pending = True
            if not content.get("wait"):
                self._clear()
        elif msg_type == "stream":
            self._clear_if_pending()
            self._stream(str(content.get("name", "stdout")), str(content.get("text", "")))
        elif msg_type in ("execute_result", "display_data"):
            self._clear_if_pending()
            self._rich(msg_type, content)
        elif msg_type == "error":
            self._clear_if_pending()
            self._error(content)

    def note(self, text: str) -> None:
        """Append a line of the server's own to stderr, outside of all bounds."""
        self.outputs.append({"output_type": "stream", "name": "stderr", "text": f"{text}\n"})

    def _stream(self, name: str, text: str) -> None:
        shown = text[: self._text_left]
        self._text_left -= len(shown)
        if shown:
            last = self.outputs[-1] if self.outputs else None
            if last is not None and last["output_type"] == "stream" and last["name"] == name:
                last["text"] += shown
            elif self._room():
                self.outputs.append({"output_type": "stream", "name": name, "text": shown})
        if len(shown) < len(text):
            self._truncate(f"[output truncated: over {self.limits.text_chars} characters of text]")

    def _rich(self, msg_type: str, content: dict[str, Any]) -> None:
        data, was_cut = cut_mime(dict(content.get("data") or {}), self._text_left, self._rich_left)
        if was_cut:
            self._truncate("[output truncated: a result was too large]")
        if not self._room():
            return
        for mime, value in data.items():
            if mime.startswith("text/"):
                self._text_left = max(0, self._text_left - _size(value))
            else:
                self._rich_left -= _size(value)
        output: Output = {"output_type": msg_type, "data": data, "metadata": content.get("metadata") or {}}
        if msg_type == "execute_result":
            output["execution_count"] = content.get("execution_count")
        self.outputs.append(output)

    def _error(self, content: dict[str, Any]) -> None:
        # Kept even when text and entries have run out: why a cell failed is worth more than what it printed.
        self.error = error_output(
            str(content.get("ename", "")),
            str(content.get("evalue", "")),
            [str(line) for line in content.get("traceback") or []],
            self.limits.text_chars // 4,
        )
        self.outputs.append(self.error)

    def _room(self) -> bool:
        if len(self.outputs) < self.limits.outputs:
            return True
        self._truncate(f"[output truncated: over {self.limits.outputs} outputs]")
        return False

    def _truncate(self, why: str) -> None:
        if not self.truncated:
            self.truncated = True
            self.note(why)

    def _clear_if_pending(self) -> None:
        if self._clear_pending:
            self._clear()

    def _clear(self) -> None:
        # The budgets stay spent: clear_output in a loop must not be a way around them.
        self._clear_pending = False
        self.outputs.clear()


def error_output(ename: str, evalue: str, traceback: list[str], limit: int) -> Output:
    """An ``error`` entry of the Jupyter format whose texts together have about ``limit`` characters."""
    return {
        "output_type": "error",
        "ename": cut(ename, 200),
        "evalue": cut(evalue, max(200, limit // 4)),
        "traceback": cut_traceback(traceback, limit),
    }
