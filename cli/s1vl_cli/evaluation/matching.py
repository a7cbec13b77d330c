"""Which option an answer names, by VLMEvalKit's rules for `exact_matching`: no model judges. Pure.

The rules are those of `can_infer` in `vlmeval/utils/matching_util.py` (2026). Older releases accepted a letter anywhere
and had neither the phrase nor the limit on the length below, so their numbers differ a little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NONE = "Z"
"""What stands for no option; never right."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_PHRASE = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
_LAST_WORDS = 4


def option_of(answer: str, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer names, or `NONE`.

    Args:
        answer: The model's final answer.
        options: The choices by their letters.
    """
    return _letter(answer, options) or _text(answer, options) or NONE


def _letter(answer: str, options: Mapping[str, str]) -> str:
    if any(refusal in answer for refusal in _REFUSALS):
        return NONE
    words = answer.translate(_PUNCTUATION).split()
    named = [letter for letter in options if letter in words]
    # Only the first place of the letter counts, and it must be near the end.
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and NONE in words:
        return NONE
    phrase = _PHRASE.search(answer)
    letter = phrase.group(1).upper() if phrase else ""
    return letter if letter in options else ""


def _text(answer: str, options: Mapping[str, str]) -> str:
    answer = answer.lower()
    if len(answer) > 2 * sum(map(len, options.values())):
        return ""
    named = [letter for letter, text in options.items() if text.lower() in answer]
    return named[0] if len(named) == 1 else ""
