"""Data sets: what is read, what is refused and how it is said, and how little of it is kept."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation import tsv
from s1vl_cli.evaluation.dataset import read
from s1vl_cli.evaluation.pictures import PictureError
from tests.unit.cli.conftest import encoded, picture, row, write


def url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_a_plain_data_set(tmp_path: Path) -> None:
    extra = {"hint": "Look.", "l2-category": "seeing", "split": "dev", "comment": "left alone"}
    path = write(tmp_path / "x.tsv", [row(0, **extra), row(1, answer="D", image=encoded(picture("blue")))])
    dataset = read(path)
    first, second = dataset.questions
    assert (first.index, first.question, first.hint, first.answer) == ("0", "What?", "Look.", "A")
    assert first.options == {"A": "red", "B": "blue", "C": "green", "D": "white"}
    assert (first.category, first.l2_category, first.split, first.cycle, first.group) == (
        "colour",
        "seeing",
        "dev",
        "",
        "",
    )
    assert (second.index, second.hint, second.answer) == ("1", "", "D")
    assert dataset.pictures(first) == [url(picture())]
    assert dataset.pictures(second) == [url(picture("blue"))]
    assert dataset.without_picture == 0


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "x.tsv", [row(0)])
    sizes: list[int] = []
    assert read(path, sizes.append).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(sizes) == path.stat().st_size


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_quotes_line_breaks_and_byte_order_marks(tmp_path: Path, line_end: str, encoding: str) -> None:
    large = picture("red", (1200, 1200), "BMP")
    rows = [
        row(0, question='Which of "these"?\nLine\ttwo', A="a\tb", image=encoded(large)),
        row(1, question="哪个", B='"', image=encoded(picture("blue"))),
    ]
    path = write(tmp_path / "x.tsv", rows, line_end=line_end, encoding=encoding)
    path.write_bytes(path.read_bytes() + line_end.encode() * 2)
    dataset = read(path)
    first, second = dataset.questions
    assert first.question == 'Which of "these"?\nLine\ttwo'
    assert first.options["A"] == "a\tb"
    assert second.question == "哪个"
    assert second.options["B"] == '"'
    assert dataset.pictures(first) == [url(large, "image/bmp")]
    assert dataset.pictures(second) == [url(picture("blue"))]


def test_hrbench_shares_a_picture_between_rotations(tmp_path: Path) -> None:
    rows = [
        row(0, image="2", cycle_category=0, answer="A"),
        row(1, image="2", cycle_category=1, answer="B"),
        row(2, image=encoded(picture("blue")), cycle_category=2, answer="C", g_index=0),
    ]
    dataset = read(write(tmp_path / "x.tsv", rows))
    assert [question.cycle for question in dataset.questions] == ["0", "1", "2"]
    assert [question.group for question in dataset.questions] == ["", "", "0"]
    assert {tuple(dataset.pictures(question)) for question in dataset.questions} == {(url(picture("blue")),)}


def test_what_pandas_reads_as_nothing_is_nothing(tmp_path: Path) -> None:
    rows = [row(0, C="None", D="nan", hint="N/A", category="NA"), row(1, image=""), row(2, image="nan")]
    dataset = read(write(tmp_path / "x.tsv", rows))
    assert len(dataset.questions) == 1
    assert dataset.questions[0].options == {"A": "red", "B": "blue"}
    assert (dataset.questions[0].hint, dataset.questions[0].category) == ("", "")
    assert dataset.without_picture == 2


def test_several_pictures(tmp_path: Path) -> None:
    pictures = [picture("red"), picture("blue", kind="JPEG")]
    listed = str([encoded(content) for content in pictures])
    dataset = read(write(tmp_path / "x.tsv", [row(0, image=listed)]))
    assert dataset.pictures(dataset.questions[0]) == [url(pictures[0]), url(pictures[1], "image/jpeg")]


@pytest.mark.parametrize("name", ["beside.png", "images/x/kept.png", "a, 'b'.png"])
def test_paths_of_pictures(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture("blue"))
    for value in (str(file), str(file.relative_to(tmp_path)), file.name, str([file.name, str(file)])):
        values = {**row(0), "image_path": value}
        del values["image"]
        dataset = read(write(tmp_path / "x.tsv", [values]))
        assert set(dataset.pictures(dataset.questions[0])) == {url(picture("blue"))}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("!" * 100, "not base64"),
        (encoded()[:-1], "no multiple of 4; was it cut off?"),
        (encoded(b"root:x:0:0" * 20), "not a JPEG, PNG"),
        (encoded(b"RIFF....WAVE" * 20), "not a JPEG, PNG"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, image: str, message: str) -> None:
    dataset = read(write(tmp_path / "x.tsv", [row(0, image=image)]))
    with pytest.raises(PictureError, match=message):
        dataset.pictures(dataset.questions[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [("nowhere.png", "there is no file 'nowhere.png'"), ("[", "not well-formed"), ("[1 + 1]", "not well-formed")],
)
def test_paths_that_lead_nowhere(tmp_path: Path, value: str, message: str) -> None:
    values = {**row(0), "image_path": value}
    del values["image"]
    dataset = read(write(tmp_path / "x.tsv", [values]))
    with pytest.raises(PictureError, match=message):
        dataset.pictures(dataset.questions[0])


def test_a_path_cannot_give_away_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password")
    values = {**row(0), "image_path": str(tmp_path / "secret")}
    del values["image"]
    dataset = read(write(tmp_path / "x.tsv", [values]))
    with pytest.raises(PictureError, match="not a JPEG"):
        dataset.pictures(dataset.questions[0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_kinds_of_pictures(tmp_path: Path, kind: str) -> None:
    content = picture(kind=kind)
    dataset = read(write(tmp_path / "x.tsv", [row(0, image=encoded(content))]))
    assert dataset.pictures(dataset.questions[0]) == [url(content, f"image/{kind.lower()}")]


def test_a_file_that_changes_while_it_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", [row(0), row(1)])
    dataset = read(path)
    write(path, [row(0, question="A longer one?"), row(1)])
    with pytest.raises((PictureError, CommandError)):
        dataset.pictures(dataset.questions[1])
    path.write_bytes(b"")
    with pytest.raises(PictureError, match="was changed"):
        dataset.pictures(dataset.questions[0])


def _without(*names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row(0).items() if name not in names}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_without("index"), "no column index"),
        (_without("question", "answer"), "no column question, answer"),
        (_without("image"), r"no column image \(or image_path\)"),
        (_without("A", "B", "C", "D"), "no multiple-choice data set"),
        ([row(0), row(0)], "row 2: the index '0' was there before"),
        ([row("")], "row 1: index is empty"),
        ([row(0), row(1, question=" ")], "row 2: question is empty"),
        ([row(0, answer="nan")], "row 1: answer is empty"),
        ([row(0, answer="E")], "the answer 'E' is none of the options A, B, C, D"),
        ([row(0, D="", answer="D")], "none of the options A, B, C"),
        ([row(0, answer="red")], "the answer 'red' is none of the options"),
        ([row(0, image="7")], "index 0: image names the row '7', and there is none with a picture"),
        ([row(0, image="1"), row(1, image="2"), row(2)], "index 0: image names the row '1'"),
        ([row(0, image="0")], "image names the row '0'"),
        ([row(0, image="")], "there are no questions"),
        ([row(0, question="x\0y")], "row 1 has a NUL byte"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(CommandError, match=message) as error:
        read(write(tmp_path / "x.tsv", rows))
    assert str(tmp_path / "x.tsv") in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "the file is empty"),
        (lambda content: content.split(b"\n")[0] + b"\n", "there are no questions"),
        (lambda content: content[:-8], "row 1: it has 8 values, the header 9 columns; was the file cut off"),
        (lambda content: content[:-1] + b"\tmore\n", "row 1: it has 10 values"),
        (lambda content: content.replace(b"red", b"r\xffd"), "row 1 is not UTF-8"),
        (lambda content: content.replace(b"index", b"A", 1), "no column index"),
        (lambda content: content.replace(b"category", b"A"), "more than one column A"),
        (lambda content: content.replace(b"red", b'"red'), "row 1: it has 4 values"),
        (lambda content: b"\x1f\x8b\x08\x00" + content, "NUL|UTF-8"),
    ],
)
def test_broken_files(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = write(tmp_path / "x.tsv", [row(0)])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CommandError, match=message):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(CommandError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize("body", [b"x" * 5000, b'0\t"open\n' + b"x\n" * 3000])
def test_a_row_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr(tsv, "MAX_ROW_BYTES", 4096)
    path = tmp_path / "x.tsv"
    path.write_bytes(b"index\tquestion\tanswer\tA\timage\n" + body)
    with pytest.raises(CommandError, match="row 1 has over 4096 bytes; is a quote never closed"):
        read(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """80 MB of pictures of 4 MB each, in quoted and unquoted rows."""
    image = encoded(picture("red", (1000, 1000), "BMP"))
    path = tmp_path / "x.tsv"
    with path.open("w") as file:
        file.write("index\timage\tquestion\tA\tB\tanswer\n")
        for index in range(20):
            file.write(f"{index}\t{image}\t{'What?' if index % 2 else chr(34) + 'What?' + chr(34)}\tx\ty\tA\n")
    tracemalloc.start()
    try:
        dataset = read(path)
        for question in dataset.questions:
            assert len(dataset.pictures(question)[0]) > len(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(dataset.questions) == 20
    assert peak < 8 * len(image)
