"""Reads a turn of the model while it is being said: what may be shown, and when nothing more is wanted. Pure.

However a turn is split into pieces, what comes out in the end is what `parse` makes of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from s1vl_orchestrator.protocol.parser import Answer, Block, Code, Malformed, TurnText, find_code, parse, parse_final
from s1vl_orchestrator.protocol.profile import Profile


class Channel(StrEnum):
    """Where the engine put a piece of text: before `</think>` or after it."""

    REASONING = "reasoning"
    CONTENT = "content"


@dataclass(frozen=True)
class Thinking:
    """More text to show as thinking. The pieces hold no code that is run and never half a tag."""

    text: str


@dataclass(frozen=True)
class Answering:
    """More text of the answer.

    Attributes:
        text: The piece; "" with `restart` when there is no answer after all.
        restart: All pieces before were not the answer: the model corrected itself, or went on to code. Whoever cannot
            take text back takes the answer from `StreamParser.finish`.
    """

    text: str
    restart: bool = False


@dataclass(frozen=True)
class Over:
    """Nothing more is wanted: leave the engine's request. Comes once, and only for a turn that is cut short."""

    intent: Code | Answer | Malformed


Event = Thinking | Answering | Over


@dataclass(frozen=True)
class Parsed:
    """A whole turn.

    Attributes:
        reasoning: Its thinking, cut where the turn was.
        content: Its text after the thinking, likewise.
        intent: What it asks for. With code not allowed: the answer, or that there is none.
        events: What `feed` has not told yet.
    """

    reasoning: str
    content: str
    intent: Code | Answer | Malformed
    events: list[Event]


class StreamParser:
    """One turn. Feed the pieces in the order in which the engine says them, then `finish`.

    The pieces of `Answering` since the last restart make exactly the text of the answer. They come early only from
    inside answer tags that begin a line of the content; any other answer is known at the end and comes whole.
    """

    def __init__(self, profile: Profile, *, code_allowed: bool = True) -> None:
        self._profile = profile
        self._code_allowed = code_allowed
        self._turn = TurnText(profile, stop_at_code=code_allowed)
        self._thought = 0
        """Characters of the reasoning that were shown, or are code and never will be."""
        self._thought_over = False
        self._answer_open = re.compile(rf"^[ \t]*{re.escape(profile.answer_open)}\s*", re.MULTILINE)
        self._watched = 0
        """Characters of the content that were looked at for an answer's beginning."""
        self._answer_from: int | None = None
        self._answer_to = 0
        self._frozen = False
        self._shown = ""
        self._code_tags = (profile.code_open, profile.call_open)
        self._answer_ends = (
            profile.answer_close,
            profile.answer_open,
            profile.think_open,
            profile.think_close,
            *self._code_tags,
        )
        cuts = (profile.code_close, profile.call_close, *profile.cut_before)
        self._thinking_tags = _beginnings((*self._code_tags, *cuts))
        self._answer_tags = _beginnings((*self._answer_ends, *cuts))
        self._finished: Parsed | None = None

    @property
    def over(self) -> bool:
        """Nothing more is wanted."""
        return self._turn.cut

    @property
    def reasoning(self) -> str:
        """All of the reasoning so far."""
        return self._turn.reasoning

    @property
    def content(self) -> str:
        """All of the content so far."""
        return self._turn.content

    def feed(self, channel: Channel, text: str) -> list[Event]:
        """Take the next piece. After `Over` came, pieces are ignored."""
        turn = self._turn
        if turn.cut or not text:
            return []
        if channel is Channel.REASONING:
            turn.feed(text, "")
        else:
            turn.feed("", text)
        if turn.cut:
            parsed = self.finish()
            self._finished = Parsed(parsed.reasoning, parsed.content, parsed.intent, [])
            return [*parsed.events, Over(parsed.intent)]
        if channel is Channel.REASONING:
            return self._think(self._thinking_end())
        return [] if turn.content.isspace() else self._answer()

    def finish(self, *, truncated: bool = False) -> Parsed:
        """The turn as a whole.

        Args:
            truncated: It ended because it had no tokens or no time left; of no matter once it is over.
        """
        if self._finished is None:
            self._finished = self._conclude(truncated=truncated and not self._turn.cut)
        return self._finished

    def _conclude(self, *, truncated: bool) -> Parsed:
        reasoning, content = self._turn.reasoning, self._turn.content
        intent: Code | Answer | Malformed
        if self._code_allowed:
            intent = parse(reasoning, content, self._profile, truncated=truncated)
        else:
            answer = parse_final(reasoning, content, self._profile, truncated=truncated)
            intent = Answer(answer) if answer else Malformed("There was no answer.")
        events: list[Event] = []
        block = find_code(reasoning, self._profile)
        used = block if block and (block.closed or not content.strip()) else None
        events += self._think(used.start if used else len(reasoning))
        answer = intent.text if isinstance(intent, Answer) else ""
        if used is None and isinstance(intent, Code) and self._answer_from is None:
            events += self._commentary(find_code(content, self._profile))
        if not answer.startswith(self._shown):
            events.append(Answering(answer, restart=True))
        elif answer != self._shown:
            events.append(Answering(answer[len(self._shown) :]))
        return Parsed(reasoning, content, intent, events)

    def _commentary(self, block: Block | None) -> list[Event]:
        said = self._turn.content[: block.start].strip() if block else ""
        return [Thinking(said)] if said else []

    def _think(self, end: int) -> list[Event]:
        text = self._turn.reasoning[self._thought : end]
        self._thought = max(self._thought, end)
        return [Thinking(text)] if text else []

    def _thinking_end(self) -> int:
        """How much of the reasoning can be shown: all but what may be code, or the beginning of a tag."""
        text, at = self._turn.reasoning, self._thought
        while True:
            found = [(start, tag) for tag in self._code_tags if (start := text.find(tag, at)) >= 0]
            if not found:
                return len(text) - self._thinking_tags.held_back(text[at:])
            start, tag = min(found)
            behind = text[start + len(tag) :].lstrip(" \t")
            # A fence, a line break or JSON begins code. Anything else on the line is a tag named in prose, unless the
            # line goes on to a close tag, which ends the turn.
            begins_code = behind.startswith(("\n", "\r", "{", "```"))
            if begins_code or "\n" not in behind:
                return start
            at = start + len(tag)

    def _answer(self) -> list[Event]:
        content = self._turn.content
        # Thinking that was begun as code and went on to content was no code.
        events = [] if self._thought_over else self._think(len(self._turn.reasoning))
        self._thought_over = True
        if self._answer_from is None:
            opened = self._answer_open.search(content, self._watched)
            if opened is None:
                line = max(self._watched, content.rfind("\n", self._watched) + 1)
                begun = content[line:].lstrip(" \t")
                # A line that began with something else has no answer that begins it.
                self._watched = line if self._profile.answer_open.startswith(begun) else len(content)
                return events
            self._answer_from = self._answer_to = opened.end()
            before = content[: opened.start()].strip()
            if before and not any(tag in before for tag in self._answer_ends):
                events.append(Thinking(before))
        if self._frozen:
            return events
        new = content[self._answer_to :]
        ends = [at for tag in self._answer_ends if (at := new.find(tag)) >= 0]
        self._frozen = bool(ends)
        ready = new[: min(ends)] if ends else new[: len(new) - self._answer_tags.held_back(new)]
        # White space at either end of an answer is not part of it.
        ready = ready.rstrip() if self._shown else ready.strip()
        if ready:
            self._answer_to = content.index(ready, self._answer_to) + len(ready)
            self._shown += ready
            events.append(Answering(ready))
        return events


class _Beginnings:
    """What tags begin with, to hold back the end of a text that may become one of them."""

    def __init__(self, tags: Iterable[str]) -> None:
        tags = set(tags)
        sizes = range(max(map(len, tags)) - 1, 0, -1)
        self._by_size = [(size, tuple({tag[:size] for tag in tags if len(tag) > size})) for size in sizes]
        self._all = tuple(beginning for _, beginnings in self._by_size for beginning in beginnings)

    def held_back(self, text: str) -> int:
        """Characters at the end that may be the beginning of a tag."""
        if not text.endswith(self._all):
            return 0
        return next(size for size, beginnings in self._by_size if text.endswith(beginnings))


@lru_cache(maxsize=64)
def _beginnings(tags: tuple[str, ...]) -> _Beginnings:
    return _Beginnings(tags)
