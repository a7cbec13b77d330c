"""What fits into the model's context: image tokens, image counts, and how many tokens a turn may produce. Pure.

Qwen3-VL scales a picture to multiples of 32 px per side and spends one token per 32x32 px.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

SIDE = 32
MIN_PIXELS = 65_536
MAX_PIXELS = 16_777_216
MAX_ASPECT = 200
IMAGE_MARKS = 2
"""Tokens around each image."""

ANSWER_SECONDS = 45.0
"""Time kept back for the final answer; of a short deadline at most `ANSWER_SHARE`."""
ANSWER_SHARE = 0.3

MESSAGE_TOKENS = 10
"""Upper bound of what the chat template adds around one message: 5 tokens, and 9 around a tool's result."""


class AspectTooExtremeError(ValueError):
    """One side is more than 200 times the other: the model's processor refuses such a picture."""


def smart_resize(
    width: int, height: int, max_pixels: int = MAX_PIXELS, min_pixels: int = MIN_PIXELS
) -> tuple[int, int]:
    """The size in px, (width, height), to which the model's processor scales a picture.

    Raises:
        AspectTooExtremeError: If the processor would refuse it.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise AspectTooExtremeError(f"the aspect ratio of {width}x{height} px is over {MAX_ASPECT}")
    # A side of less than half a patch becomes 0 here, as in the processor, and then grows to the least size.
    new_width = round(width / SIDE) * SIDE
    new_height = round(height / SIDE) * SIDE
    if new_width * new_height > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        new_width = max(SIDE, math.floor(width / scale / SIDE) * SIDE)
        new_height = max(SIDE, math.floor(height / scale / SIDE) * SIDE)
    elif new_width * new_height < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        new_width = math.ceil(width * scale / SIDE) * SIDE
        new_height = math.ceil(height * scale / SIDE) * SIDE
    return new_width, new_height


def copy_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The size in px, (width, height), of a smaller copy for the model that its processor takes as it is.

    Raises:
        AspectTooExtremeError: If the processor would refuse the picture itself.
    """
    new_width, new_height = smart_resize(width, height, max_pixels=max_pixels)
    # Rounding a long picture's short side down can take the copy over the limit that the picture itself keeps.
    return min(new_width, MAX_ASPECT * new_height), min(new_height, MAX_ASPECT * new_width)


def image_tokens(width: int, height: int) -> int:
    """Tokens of a picture of this size in the prompt, its two marks included."""
    new_width, new_height = smart_resize(width, height)
    return new_width * new_height // (SIDE * SIDE) + IMAGE_MARKS


_PIECES = re.compile(
    # Marks, scripts and symbols whose characters take up to two tokens each: once here, once more below.
    r"(?=[\u0370-\u03ff\u0900-\u0dff\u2070-\u2bff\U00010000-\U0010ffff])"
    # As the tokenizer splits: digits one by one; line breaks; spaces but for the one that its word or sign takes along.
    r"|\d|\s*[\r\n]+|\s{1,32}(?=\s)|\s(?=\d)"
    # Words in pieces of four; capitals, ciphers, formulas and other strings without words in shorter ones.
    r"|(?<=\d)[a-z]{1,2}|[A-Z]?[a-z]{1,4}|[A-Z]|[\xc0-\u036f\u0400-\u06ff]{1,2}"
    r"|[!-/:-@\[-`{-~]{1,2}|[^\sa-zA-Z]"
)


def text_tokens(text: str) -> int:
    """An estimate of a text's tokens that errs upwards: by a quarter to a half for prose and code.

    It follows the way in which the tokenizer splits a text before it looks the pieces up. Measured with the published
    vocabulary of Qwen: not under for tables of numbers, JSON, LaTeX, molecules, sequences, and the scripts of some 20
    languages; under by up to a tenth for random bytes in base64.
    """
    return len(_PIECES.findall(text)) + 1


def thinking_seconds(deadline: float) -> float:
    """Seconds of a deadline in which the model may think and run code; the rest is for its final answer."""
    return deadline - min(ANSWER_SECONDS, deadline * ANSWER_SHARE)


@dataclass(frozen=True)
class ContextBudget:
    """Limits of one job in tokens and images.

    Attributes:
        context: The engine's max_model_len.
        images: Images the engine takes in one prompt.
        turn: Most tokens one turn may produce.
        answer: Tokens kept back for the final answer.
        margin: Left unused, for the estimates' error.
        input_pixels: Most px of an input as the model sees it.
        new_pixels: Most px of a picture made on the way.
    """

    context: int
    images: int
    turn: int
    answer: int
    margin: int
    input_pixels: int
    new_pixels: int

    @classmethod
    def fit(
        cls, *, context: int, images: int, turn: int, answer: int, input_pixels: int, new_pixels: int
    ) -> ContextBudget:
        """Scale a profile's limits down to an engine with a small context."""
        return cls(
            context=context,
            images=images,
            turn=min(turn, context // 2),
            answer=min(answer, context // 4),
            margin=min(256, context // 32),
            input_pixels=input_pixels,
            new_pixels=new_pixels,
        )

    def pixels_per_input(self, count: int) -> int:
        """Most px of each of `count` inputs, so that together they leave half of the context to text and turns."""
        share = self.context // 2 // max(1, count) * SIDE * SIDE
        return max(MIN_PIXELS, min(self.input_pixels, share))

    def turn_tokens(self, prompt: int) -> int:
        """`max_tokens` of an ordinary turn after a prompt of so many tokens; 0 when the answer must come now."""
        room = self.context - prompt - self.margin - self.answer
        return min(self.turn, room) if room >= min(512, self.answer // 2) else 0

    def answer_tokens(self, prompt: int) -> int:
        """`max_tokens` of the final turn; 0 when not even an answer fits."""
        room = self.context - prompt - self.margin
        return min(self.turn, room) if room >= min(64, self.answer) else 0
