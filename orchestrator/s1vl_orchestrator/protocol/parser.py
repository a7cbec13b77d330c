"""Reads what a turn of the model says: code to run, an answer, or neither. Pure; never raises on any text.

The text comes in two channels, `reasoning` and `content`, because the engine splits at `</think>`. Code may come in
either: a turn that is stopped at `</code>` before `</think>` is all reasoning and has no content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from s1vl_orchestrator.protocol.profile import Profile
from s1vl_orchestrator.protocol.repetition import WINDOW, repeats

_FENCE_OPEN = re.compile(r"\s*```[ \t]*(?:[\w+.-]+)?[ \t]*(?:\r?\n|$)")
_FENCE_CLOSE = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
_REPETITION_STEP = 256


@dataclass(frozen=True)
class Code:
    """Code to run, as the model wrote it, without tags and fence."""

    source: str


@dataclass(frozen=True)
class Answer:
    """The final answer."""

    text: str


@dataclass(frozen=True)
class Malformed:
    """Neither code nor an answer; `why` is a sentence for the model."""

    why: str


_CIRCLES = Malformed("The text went round in circles and was cut off. Go on from another side.")


@dataclass(frozen=True)
class Block:
    """A tagged block of a text: `text[start:end]` with its tags, `body` without. `closed`: the close tag is there."""

    start: int
    end: int
    body: str
    closed: bool
    is_call: bool


class TurnText:
    """The text of one turn as it streams in. After `feed` returns True, nothing more is wanted.

    A turn is over at the end of its first code, where it begins to invent a result, and when it goes round in circles.

    However the text is split into pieces, the result is that of the whole text at once.
    """

    def __init__(self, profile: Profile, *, stop_at_code: bool = True) -> None:
        self._profile = profile
        self._stop_at_code = stop_at_code
        self.reasoning = ""
        self.content = ""
        self.cut = False

    def feed(self, reasoning: str, content: str) -> bool:
        """Take the next piece of either channel; returns whether the turn is over."""
        if not self.cut and reasoning:
            self.reasoning = self._add(self.reasoning, reasoning)
        if not self.cut and content:
            self.content = self._add(self.content, content)
        return self.cut

    def _add(self, text: str, piece: str) -> str:
        text += piece
        # A tag may be split over pieces: look again at the end of what was there.
        searched = max(0, len(text) - len(piece) - self._profile.longest_tag)
        end = self._end(text, searched)
        # At fixed places, so that the cut does not depend on the pieces.
        first = (len(text) - len(piece)) // _REPETITION_STEP + 1
        last = (len(text) if end is None else end) // _REPETITION_STEP
        steps = (step * _REPETITION_STEP for step in range(first, last + 1))
        end = next((at for at in steps if repeats(text[max(0, at - WINDOW) : at])), end)
        if end is None:
            return text
        self.cut = True
        return text[:end]

    def _end(self, text: str, searched: int) -> int | None:
        profile = self._profile
        ends = []
        for tag in profile.cut_before:
            at = text.find(tag, searched)
            # Thinking may name the tag; only after code was begun is it an invented result.
            while at >= 0 and not any(text.find(begin, 0, at) >= 0 for begin in (profile.code_open, profile.call_open)):
                at = text.find(tag, at + 1)
            if at >= 0:
                ends.append(at)
        if self._stop_at_code:
            closes = (profile.code_close, profile.call_close)
            ends += [at + len(tag) for tag in closes if (at := text.find(tag, searched)) >= 0]
        return min(ends, default=None)


def find_code(text: str, profile: Profile) -> Block | None:
    """The first block of code or tool call in a text."""
    found = [
        block
        for block in (
            _find(text, profile.code_open, profile.code_close, is_call=False),
            _find(text, profile.call_open, profile.call_close, is_call=True),
        )
        if block
    ]
    # A closed block that ends first came first; an open one only counts when nothing was closed.
    return min(found, key=lambda block: (not block.closed, block.end), default=None)


def parse(reasoning: str, content: str, profile: Profile, *, truncated: bool = False) -> Code | Answer | Malformed:
    """Read one turn.

    Args:
        reasoning: What the engine called reasoning ("" for none).
        content: What the engine called content ("" for none).
        profile: Tags.
        truncated: The turn ended because it had no tokens left.
    """
    reasoning, content = profile.split(reasoning, content)
    block = find_code(reasoning, profile)
    # Thinking that only names an open tag, and goes on to content, has no code.
    if block and (block.closed or not content.strip()):
        return _read_block(block, truncated=truncated)
    block = find_code(content, profile)
    # It may have answered first and gone on.
    if block and profile.answer_close not in content[: block.start]:
        return _read_block(block, truncated=truncated)
    return _read_answer(reasoning, content[: block.start] if block else content, profile, truncated=truncated)


def parse_final(reasoning: str, content: str, profile: Profile, *, truncated: bool = False) -> str | None:
    """The answer of a turn in which no more code may be run; None when there is no text to take for one."""
    reasoning, content = profile.split(reasoning, content)
    tagged = _tagged(content, profile) or _tagged(reasoning, profile)
    if tagged:
        return tagged
    text = "" if repeats(content) else _clean(_without_code(content, profile), profile)
    if not text and not truncated and not repeats(reasoning):
        text = _clean(_without_code(reasoning, profile), profile)
    return text or None


def _without_code(text: str, profile: Profile) -> str:
    while block := find_code(text, profile):
        text = text[: block.start] + text[block.end :]
    return text


def _read_block(block: Block, *, truncated: bool) -> Code | Malformed:
    if not block.closed and repeats(block.body):
        return _CIRCLES
    if not block.closed and truncated:
        return Malformed("The code was cut off because it was too long. Write shorter code.")
    if block.is_call:
        return _read_call(block.body)
    source = _unfence(block.body)
    return Code(source) if source.strip() else Malformed("The code block was empty.")


def _read_call(body: str) -> Code | Malformed:
    try:
        call = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return Malformed("The tool call was not valid JSON.")
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            return Malformed("The arguments of the tool call were not valid JSON.")
    source = arguments.get("code") if isinstance(arguments, dict) else None
    if not isinstance(source, str) or not source.strip():
        return Malformed('The tool call had no code in {"arguments": {"code": "..."}}.')
    return Code(_unfence(source))


def _read_answer(reasoning: str, content: str, profile: Profile, *, truncated: bool) -> Answer | Malformed:
    tagged = _tagged(content, profile)
    if tagged:
        return Answer(tagged)
    if repeats(content) or (not content.strip() and repeats(reasoning)):
        return _CIRCLES
    text = _clean(content, profile)
    if text:
        return Answer(text)
    if truncated:
        return Malformed("The thinking was too long and was cut off.")
    # Thinking that was never closed: all of it came as reasoning, and the answer is in there.
    text = _tagged(reasoning, profile) or _clean(reasoning, profile)
    return Answer(text) if text else Malformed("There was neither code nor an answer.")


def _find(text: str, open_tag: str, close_tag: str, *, is_call: bool) -> Block | None:
    close = text.find(close_tag)
    limit = close if close >= 0 else len(text)
    opens = [match.end() for match in re.finditer(re.escape(open_tag), text[:limit])]
    if not opens:
        return None
    # The tag may be named in prose before it is used, and inside the code as a string after: the one that a fence
    # or a line break follows is the one that is used.
    fenced = (at for at in opens if _FENCE_OPEN.match(text, at, limit))
    broken = (at for at in opens if text[at:limit].lstrip(" \t").startswith(("\n", "\r", "{")))
    at = next(fenced, None) or next(broken, None)
    if at is None:
        if close < 0:
            return None
        at = opens[0]
    end = limit + len(close_tag) if close >= 0 else limit
    return Block(at - len(open_tag), end, text[at:limit], close >= 0, is_call)


def _unfence(body: str) -> str:
    start = _FENCE_OPEN.match(body)
    if start is None:
        return body.strip("\r\n") if body.strip() else ""
    inner = body[start.end() :]
    closes = list(_FENCE_CLOSE.finditer(inner))
    if closes:
        inner = inner[: closes[-1].start()]
    elif inner.rstrip().endswith("```"):
        inner = inner.rstrip()[:-3]
    return inner.strip("\r\n")


def _tagged(text: str, profile: Profile) -> str:
    """The last answer block. One that quotes the tags inside is taken as a whole."""
    tags = re.compile(f"(?P<open>{re.escape(profile.answer_open)})|{re.escape(profile.answer_close)}")
    depth = start = 0
    found = ""
    for tag in tags.finditer(text):
        if tag["open"]:
            start = start if depth else tag.end()
            depth += 1
        elif depth:
            depth -= 1
            found = text[start : tag.start()] if not depth else found
    if depth:
        # Not balanced: an open tag was named in prose, or the last block was not closed.
        close = text.rfind(profile.answer_close)
        opened = text.rfind(profile.answer_open)
        end = close if close > opened else len(text)
        found = text[opened + len(profile.answer_open) : end]
    return _clean(found, profile)


def _clean(text: str, profile: Profile) -> str:
    for tag in (profile.think_open, profile.think_close, profile.answer_open, profile.answer_close):
        text = text.replace(tag, "")
    return text.strip()
