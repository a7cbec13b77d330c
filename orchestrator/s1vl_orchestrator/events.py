"""What a job tells while it runs, in the client's view. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from s1vl_orchestrator.paths import TenantPaths


class EventName(StrEnum):
    """Names of the server-sent events of `POST /process`."""

    TURN_START = "turn.start"
    REASONING_DELTA = "reasoning.delta"
    CODE = "code"
    EXEC_START = "exec.start"
    EXEC_RESULT = "exec.result"
    IMAGE = "image"
    ANSWER_DELTA = "answer.delta"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True)
class Event:
    """One event and its JSON data."""

    name: EventName
    data: dict[str, Any]


Listener = Callable[[Event], None]
"""Takes the events of a job; called on the event loop and must not block."""


class ClientText:
    """Puts the client's paths into a text that comes in pieces.

    However it is split, the pieces that come out make `TenantPaths.to_client_text` of the whole: what may be the
    beginning of a path's prefix is held back until it is known.
    """

    def __init__(self, paths: TenantPaths) -> None:
        self._paths = paths
        self._prefix = f"{paths.sandbox}/"
        self._before = ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece; returns what can be shown."""
        text = self._held + piece
        # The end of a prefix, a slash, is not the beginning of the next one.
        whole = text.rfind(self._prefix)
        behind = whole + len(self._prefix) if whole >= 0 else 0
        most = min(len(text) - behind, len(self._prefix) - 1)
        keep = next((size for size in range(most, 0, -1) if self._prefix.startswith(text[-size:])), 0)
        return self._show(text, len(text) - keep)

    def flush(self) -> str:
        """The rest, at the end of the text; another text may follow."""
        text = self._show(self._held, len(self._held))
        self._before = ""
        return text

    def _show(self, text: str, end: int) -> str:
        ready, self._held = text[:end], text[end:]
        if not ready:
            return ""
        shown = self._paths.to_client_text(self._before + ready)[len(self._before) :]
        self._before = ready[-1]
        return shown
