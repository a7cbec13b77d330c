"""Tells a text that goes round in circles from one that goes on. Pure."""

from __future__ import annotations

WINDOW = 2048
"""Characters at the end that are looked at."""

LONGEST_UNIT = WINDOW // 4
"""Most characters of what is repeated: the window then holds at least four exact copies of it."""

_PROBE = 32


def repeats(text: str) -> bool:
    """Whether the last `WINDOW` characters are one piece of at most `LONGEST_UNIT` characters over and over.

    A model that has fallen into a loop does not leave it, and would fill its whole turn. Exact copies only: tables,
    numbers and code repeat themselves too, but not to the letter for so long.
    """
    tail = text[-WINDOW:]
    if len(tail) < WINDOW or tail.isspace():
        return len(tail) >= WINDOW
    # The unit's length is the distance from the end to the nearest place where the end was said before.
    before = tail.rfind(tail[-_PROBE:], 0, WINDOW - 1)
    unit = WINDOW - _PROBE - before
    return before >= 0 and unit <= LONGEST_UNIT and tail[unit:] == tail[:-unit]
