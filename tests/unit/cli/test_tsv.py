"""Rows come back as the csv module would read them, from the beginning and from any row's offset."""

from __future__ import annotations

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s1vl_cli.evaluation.tsv import Reader

# Python's csv.writer does not quote a lone carriage return, and no reader of TSV files could tell it from a line's end.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
LONG = st.builds(lambda unit, times: unit * times, st.sampled_from(["A", "ab+/", "Zz9="]), st.integers(1, 6000))
FIELD = st.one_of(TEXT, LONG, st.builds(lambda text, long: f"{text}{long}{text}", TEXT, LONG))
ROWS = st.lists(st.lists(FIELD, min_size=2, max_size=4), min_size=1, max_size=6)


@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_rows(rows: list[list[str]], line_end: str, quoting: Any) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator=line_end, quoting=quoting).writerows(rows)
    file = io.BytesIO(out.getvalue().encode())
    seen: list[bytes] = []
    found = list(Reader(file, seen.append))
    assert [row.fields for row in found] == rows
    assert [row.number for row in found] == list(range(len(rows)))
    assert b"".join(seen) == file.getvalue()
    for row in found:
        file.seek(row.offset)
        assert next(Reader(file)).fields == row.fields
