"""Token arithmetic: exact for images, an approximation for text.

Text is cut into special tokens, line breaks, digits, and runs of at most five letters with the space before them: about
four characters of English a token, deterministic, and local, so that appending text never changes earlier tokens.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass

PIXELS_PER_SIDE = 32  # one image token stands for 32x32 px
MIN_PIXELS = 65_536
MAX_PIXELS = 16_777_216
MAX_ASPECT = 200

THINK_END = "</think>"
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<think>", THINK_END, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")  # fmt: skip
_PIECES = re.compile("|".join(map(re.escape, SPECIAL)) + r"|\n| ?[A-Za-z]{1,5}|\d| {1,8}|[^\S\n ]|[^\sA-Za-z\d]")
_FIRST_ORDINARY_ID = 100
_VOCABULARY = 151_000


class AspectError(ValueError):
    """An image so long and thin that the model's processor refuses it."""


@dataclass(frozen=True)
class Token:
    """One token: its number in the pretended vocabulary and the text that it stands for."""

    id: int
    text: str


def split_text(text: str) -> list[Token]:
    """Cut text into tokens; joining their texts gives the text back."""
    return [Token(_token_id(piece), piece) for piece in _PIECES.findall(text)]


def _token_id(piece: str) -> int:
    if piece in SPECIAL:
        return SPECIAL.index(piece)
    return _FIRST_ORDINARY_ID + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % _VOCABULARY


def smart_resize(width: int, height: int) -> tuple[int, int]:
    """Return the size in pixels at which Qwen3-VL sees an image: multiples of 32 within the pixel budget.

    Raises:
        AspectError: when one side is more than 200 times the other.
    """
    if max(width, height) / min(width, height) > MAX_ASPECT:
        raise AspectError(f"absolute aspect ratio must be smaller than {MAX_ASPECT}, got {width}x{height}")
    side = PIXELS_PER_SIDE
    # A side of less than half a patch is 0 here, and its picture grows, however long the other side.
    new_width, new_height = round(width / side) * side, round(height / side) * side
    if new_width * new_height > MAX_PIXELS:
        shrink = math.sqrt(width * height / MAX_PIXELS)
        new_width = max(side, math.floor(width / shrink / side) * side)
        new_height = max(side, math.floor(height / shrink / side) * side)
    elif new_width * new_height < MIN_PIXELS:
        grow = math.sqrt(MIN_PIXELS / (width * height))
        new_width = math.ceil(width * grow / side) * side
        new_height = math.ceil(height * grow / side) * side
    return new_width, new_height


def image_tokens(width: int, height: int) -> int:
    """Return how many tokens an image of this size takes, without the two marks around it."""
    new_width, new_height = smart_resize(width, height)
    return (new_width // PIXELS_PER_SIDE) * (new_height // PIXELS_PER_SIDE)
