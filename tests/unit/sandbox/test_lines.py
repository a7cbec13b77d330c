"""Lines of a text, by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_sandbox.api.files import cut_lines


@pytest.mark.parametrize(
    ("text", "first", "end", "expected"),
    [
        ("a\nb\nc\n", 0, None, "a\nb\nc\n"),
        ("a\nb\nc\n", 1, 2, "b\n"),
        ("a\nb\nc", 2, 3, "c"),
        ("a\nb\nc", 3, None, ""),
        ("a\nb", 1, 0, ""),
        ("a\u2028b\rc\x0bd\n", 0, 1, "a\u2028b\rc\x0bd\n"),
        ("", 0, 1, ""),
    ],
)
def test_cut_lines(text: str, first: int, end: int | None, expected: str) -> None:
    assert cut_lines(text, first, end) == expected


@given(lines=st.lists(st.text("ab", max_size=3)), first=st.integers(0, 9), end=st.integers(0, 9) | st.none())
def test_cut_lines_is_a_slice(lines: list[str], first: int, end: int | None) -> None:
    ended = [f"{line}\n" for line in lines]
    assert cut_lines("".join(ended), first, end) == "".join(ended[first:end])
