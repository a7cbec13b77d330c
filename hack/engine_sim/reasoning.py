"""From generated text to an answer: stop strings over the whole text, then the split at `</think>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hack.engine_sim.tokens import THINK_END

THINK_START = "<think>"


@dataclass(frozen=True)
class Stop:
    """A stop string that was found: which one, and where the text ends."""

    string: str
    end: int


def find_stop(text: str, new_from: int, stops: Sequence[str], *, include: bool) -> Stop | None:
    """Find the first of the stop strings that ends after `new_from`; thinking counts like any other text."""
    for stop in stops:
        at = text.find(stop, max(0, new_from - len(stop) + 1))
        if at >= 0:
            return Stop(stop, at + len(stop) if include else at)
    return None


def split_reasoning(text: str) -> tuple[str | None, str | None]:
    """Split a whole answer into (reasoning, content) as vLLM's deepseek_r1 parser does.

    Without `</think>` everything is reasoning and the content is None.
    """
    head, start, tail = text.partition(THINK_START)
    body = tail if start else head
    if THINK_END not in body:
        return body, None
    reasoning, _, content = body.partition(THINK_END)
    return reasoning, content or None


class StopScanner:
    """Feeds on tokens, finds stop strings, and gives out text that can no longer be part of one.

    Text is held back only when the stop string is not to be part of the answer, as in vLLM.
    """

    def __init__(self, stops: Sequence[str], *, include: bool):
        self._stops = stops
        self._include = include
        self._hold = 0 if include or not stops else max(map(len, stops)) - 1
        self._given = 0
        self.text = ""
        self.stop: Stop | None = None

    def feed(self, piece: str) -> str:
        """Take the next token's text and return what may go out now; sets `stop` when one was found."""
        before = len(self.text)
        self.text += piece
        self.stop = find_stop(self.text, before, self._stops, include=self._include)
        if self.stop:
            self.text = self.text[: self.stop.end]
            return self._give(len(self.text))
        return self._give(len(self.text) - self._hold)

    def flush(self) -> str:
        """Return what was held back."""
        return self._give(len(self.text))

    def _give(self, end: int) -> str:
        out = self.text[self._given : end] if end > self._given else ""
        self._given = max(self._given, end)
        return out


class StreamSplitter:
    """Splits a stream into reasoning and content by the token `</think>`, with vLLM's own loss of text.

    vLLM drops the text that comes out together with a lone `</think>` token. With text held back for stop strings that
    is text from before it, and what is left of `</think>` then arrives as content.
    """

    def __init__(self, *, active: bool):
        self._active = active
        self._closed = not active

    def split(self, token: str, text: str) -> tuple[str, str]:
        """Return (reasoning, content) for one token and the text that came out with it."""
        if self._closed:
            return "", text
        if token == THINK_END:
            self._closed = True
            return "", ""
        if token == THINK_START:
            return "", ""
        return text, ""
