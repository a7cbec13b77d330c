"""Texts in pieces: paths and limits hold wherever a text is split."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator.chat import Cutter
from s1vl_orchestrator.events import ClientText
from s1vl_orchestrator.paths import TenantPaths

PATHS = TenantPaths(PurePosixPath("/data/images"), PurePosixPath("/mnt/data/images"), Path("/volume"), "chem", "")
SNIPPETS = st.sampled_from(
    [
        "/mnt/data/images/",
        "/mnt/data/images",
        "/mnt/",
        "mnt",
        "/",
        "//",
        "x",
        " ",
        "\n",
        ".",
        "-",
        "é",
        "/data/images/a",
    ]
)
PIECES = st.lists(st.one_of(SNIPPETS, st.text(alphabet="/mntdaiges x", max_size=8)), max_size=20)


@given(PIECES)
def test_paths_are_rewritten_as_in_the_whole(pieces: list[str]) -> None:
    shown = ClientText(PATHS)
    said = "".join([*map(shown.feed, pieces), shown.flush()])
    assert said == PATHS.to_client_text("".join(pieces))


def test_texts_after_a_flush_are_texts_of_their_own() -> None:
    shown = ClientText(PATHS)
    assert shown.feed("see x") + shown.flush() == "see x"
    assert shown.feed("/mnt/data/images/a.png") + shown.flush() == "/data/images/a.png"


@pytest.mark.parametrize(
    ("limit", "stops", "whole", "shown", "ended"),
    [
        (None, [], "all of it", "all of it", ""),
        (3, [], "all of it", "all", "length"),
        (9, [], "all of it", "all of it", ""),
        (4, [], "\u6c34\u6c34", "\u6c34", "length"),
        (None, ["of"], "all of it", "all ", "stop"),
        (None, ["it", "l o"], "all of it", "al", "stop"),
        (2, ["of"], "all of it", "al", "length"),
        (None, ["itch"], "all of it", "all of it", ""),
        (3, [""], "", "", ""),
    ],
)
def test_answers_are_cut_wherever_they_are_split(
    limit: int | None, stops: list[str], whole: str, shown: str, ended: str
) -> None:
    for size in (1, 2, 3, 100):
        cutter = Cutter(limit, [stop for stop in stops if stop])
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        said = "".join([*map(cutter.feed, pieces), cutter.flush()])
        assert (said, cutter.ended) == (shown, ended), size


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.data())
def test_stops_are_found_as_in_the_whole(whole: str, stops: list[str], data: st.DataObject) -> None:
    found = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    first = min(found)[1] if found else len(whole)
    cutter = Cutter(None, stops)
    said, left = "", whole
    while left:
        size = data.draw(st.integers(1, len(left)))
        said += cutter.feed(left[:size])
        left = left[size:]
    said += cutter.flush()
    assert said == whole[:first]
