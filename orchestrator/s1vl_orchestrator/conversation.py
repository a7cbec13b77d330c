"""The prompt of a job as it grows: messages, what they cost, and how to make room. Pure.

Prompts are append-only, so that each begins with the tokens of the one before and the engine's prefix cache holds;
only `drop_oldest` breaks that, when there is no room otherwise for the final answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s1vl_orchestrator.budget import MESSAGE_TOKENS, image_tokens, text_tokens
from s1vl_orchestrator.protocol.profile import Profile

Part = dict[str, Any]


@dataclass(frozen=True)
class ShownImage:
    """An image for a message.

    Attributes:
        part: The engine's content part.
        path: Where the file is, as the model's code sees it.
        width: px of the copy that the engine gets.
        height: px of it.
    """

    part: Part
    path: str
    width: int
    height: int

    @property
    def tokens(self) -> int:
        """What it costs in the prompt."""
        return image_tokens(self.width, self.height)


@dataclass
class _Place:
    parts: list[Part]
    index: int
    image: ShownImage
    made: bool


class Conversation:
    """Messages for the engine, with a running estimate of their tokens.

    The engine's own count of a turn replaces the estimate, so only what was added since is estimated.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._images: list[_Place] = []
        self.messages: list[dict[str, Any]] = []
        self.tokens = MESSAGE_TOKENS

    @property
    def image_count(self) -> int:
        """Images in the whole history."""
        return len(self._images)

    def add(self, role: str, parts: list[str | ShownImage]) -> None:
        """Add a message of texts and inputs."""
        self._add(role, parts, made=False)

    def add_turn(
        self, reasoning: str, content: str, *, prompt_tokens: int | None = None, completion_tokens: int | None = None
    ) -> None:
        """Add what the model said, thinking inlined, and the engine's own count of its prompt and of it where known."""
        text = self._profile.history(reasoning, content)
        self.messages.append({"role": "assistant", "content": text})
        if prompt_tokens is not None and completion_tokens is not None:
            self.tokens = prompt_tokens + completion_tokens + 2 * MESSAGE_TOKENS
        else:
            self.tokens += text_tokens(text) + MESSAGE_TOKENS

    def add_result(self, text: str, images: list[ShownImage], captions: list[str]) -> None:
        """Add the result of a cell in the profile's wrapper."""
        profile = self._profile
        before = profile.result_images if images else ""
        parts: list[str | ShownImage] = [profile.result_open + profile.result_text.format(text=text) + before]
        for image, caption in zip(images, captions, strict=True):
            parts += [f"\n{caption}\n", image]
        parts.append(profile.result_close)
        self._add(profile.result_role, parts, made=True)

    def add_word(self, text: str) -> None:
        """Add a word of the loop's own, where the model looks for results."""
        profile = self._profile
        self._add(profile.result_role, [f"{profile.result_open}{text}{profile.result_close}"], made=True)

    def drop_oldest(self) -> bool:
        """Replace the oldest picture made on the way by a note; returns False when there is none."""
        for place in self._images:
            if place.made:
                note = self._profile.texts.dropped_image.format(path=place.image.path)
                place.parts[place.index] = {"type": "text", "text": note}
                self._images.remove(place)
                self.tokens += text_tokens(note) - place.image.tokens
                return True
        return False

    def _add(self, role: str, parts: list[str | ShownImage], *, made: bool) -> None:
        content: list[Part] = []
        self.tokens += MESSAGE_TOKENS
        for part in parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
                self.tokens += text_tokens(part)
            else:
                self._images.append(_Place(content, len(content), part, made))
                content.append(part.part)
                self.tokens += part.tokens
        only_text = all(isinstance(part, str) for part in parts)
        self.messages.append({"role": role, "content": "".join(map(str, parts)) if only_text else content})
