"""A data set in VLMEvalKit's TSV format: its questions in memory, its pictures left in the file until they are sent.

Columns: `index`, `question`, `answer`, `A`, `B`, ..., and `image` (base64; a list of them; or, up to 64 characters, the
index of the row that has the picture) or, where there is no such column, `image_path`. Besides, if there: `hint`,
`category`, `l2-category`, `split`, `cycle_category`, `g_index`. Other columns are left alone.
"""

from __future__ import annotations

import ast
import hashlib
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation import tsv
from s1vl_cli.evaluation.pictures import PictureError, url_of_base64, url_of_bytes
from s1vl_cli.evaluation.questions import Question

LONGEST_INDEX = 64
"""Characters of `image` up to which it is the index of another row, as in VLMEvalKit."""

MISSING = frozenset(("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "n/a", "NA", "NULL", "null", "None")) | frozenset(
    ("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
)
"""Values that pandas, and so VLMEvalKit, reads as no value: an option that says `None` is not shown there either."""


@dataclass(frozen=True)
class Dataset:
    """What is kept of a file.

    Attributes:
        path: Where it is.
        sha256: Of all its bytes.
        columns: Its header.
        questions: In the order of the file.
        without_picture: Rows with an empty `image`, which VLMEvalKit leaves out, and so do we.
    """

    path: Path
    sha256: str
    columns: list[str]
    questions: list[Question]
    without_picture: int
    _picture_rows: dict[str, tuple[int, str]] = field(repr=False)

    def pictures(self, question: Question) -> list[str]:
        """Read a question's pictures, as data URLs in their order.

        Raises:
            PictureError: They are not there or are no pictures.
            CommandError: The row is not what it was.
            OSError: A file cannot be read.
        """
        offset, index = self._picture_rows[question.index]
        with self.path.open("rb") as file:
            file.seek(offset)
            row = next(tsv.Reader(file), None)
        values = dict(zip(self.columns, row.fields, strict=False)) if row else {}
        if values.get("index", "").strip() != index:
            raise PictureError(f"{self.path} was changed since it was read")
        if "image" in values:
            return [url_of_base64(text) for text in _base64_items(values["image"].strip())]
        return [url_of_bytes(self._file(name).read_bytes()) for name in _path_items(values["image_path"].strip())]

    def _file(self, name: str) -> Path:
        """The file of an `image_path`: absolute, beside the data set, or where VLMEvalKit keeps pictures."""
        places = (self.path.parent, self.path.parent / "images" / self.path.stem)
        found = next((place / name for place in places if (place / name).is_file()), None)
        if found is None:
            raise PictureError(f"there is no file {name!r} in {' or '.join(str(place) for place in places)}")
        return found


def read(path: Path, progress: Callable[[int], object] | None = None) -> Dataset:
    """Read a data set and check it whole, so that nothing is wrong with its questions once they are asked.

    Args:
        path: The file.
        progress: Called with the number of bytes of each line that was read.

    Raises:
        CommandError: It cannot be read, or is not of the format; the message names the row.
    """
    digest = hashlib.sha256()

    def each(line: bytes) -> None:
        digest.update(line)
        if progress:
            progress(len(line))

    try:
        with path.open("rb") as file:
            scan = _Scan(tsv.Reader(file, each))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except CommandError as error:
        raise CommandError(f"{path}: {error}") from error
    return Dataset(path, digest.hexdigest(), scan.columns, scan.questions, scan.without_picture, scan.picture_rows)


class _Scan:
    """The first pass over the file."""

    def __init__(self, rows: tsv.Reader) -> None:
        header = next(rows, None)
        if header is None:
            raise CommandError("the file is empty")
        self.columns = [name.strip() for name in header.fields]
        _check_columns(self.columns)
        self.questions: list[Question] = []
        self.without_picture = 0
        self.picture_rows: dict[str, tuple[int, str]] = {}
        self._seen: set[str] = set()
        self._borrowed: dict[str, str] = {}
        for row in rows:
            try:
                self._take(row)
            except CommandError as error:
                raise CommandError(f"row {row.number}: {error}") from error
        for index, lender in self._borrowed.items():
            if lender not in self.picture_rows or lender in self._borrowed:
                raise CommandError(f"index {index}: image names the row {lender!r}, and there is none with a picture")
            self.picture_rows[index] = self.picture_rows[lender]
        if not self.questions:
            raise CommandError("there are no questions")

    def _take(self, row: tsv.Row) -> None:
        if len(row.fields) != len(self.columns):
            sizes = f"it has {len(row.fields)} values, the header {len(self.columns)} columns"
            raise CommandError(f"{sizes}; was the file cut off?")
        values = dict(zip(self.columns, row.fields, strict=True))
        image = values.get("image", values.get("image_path", "")).strip()
        if image in MISSING:
            self.without_picture += 1
            return
        question = _question(values)
        if question.index in self._seen:
            raise CommandError(f"the index {question.index!r} was there before")
        self._seen.add(question.index)
        if "image" in values and len(image) <= LONGEST_INDEX:
            self._borrowed[question.index] = image
        self.picture_rows[question.index] = (row.offset, question.index)
        self.questions.append(question)


def _check_columns(columns: list[str]) -> None:
    missing = [name for name in ("index", "question", "answer") if name not in columns]
    if "image" not in columns and "image_path" not in columns:
        missing.append("image (or image_path)")
    if not any(name in string.ascii_uppercase for name in columns if len(name) == 1):
        missing.append("A, B, ... (this is no multiple-choice data set)")
    if missing:
        shown = ", ".join(name[:40] for name in columns[:30])
        raise CommandError(f"there is no column {', '.join(missing)}; the columns are: {shown}")
    if twice := {name for name in columns if columns.count(name) > 1}:
        raise CommandError(f"there is more than one column {', '.join(sorted(twice))}")


def _question(values: dict[str, str]) -> Question:
    present = {name: value for name, value in values.items() if value not in MISSING}
    for name in ("index", "question", "answer"):
        if not present.get(name, "").strip():
            raise CommandError(f"{name} is empty")
    options = {letter: present[letter] for letter in string.ascii_uppercase if letter in present}
    answer = values["answer"].strip()
    if answer not in options:
        raise CommandError(
            f"the answer {answer[:40]!r} is none of the options {', '.join(options) or '(there are none)'}"
        )
    return Question(
        index=values["index"].strip(),
        question=values["question"],
        hint=present.get("hint", ""),
        options=options,
        answer=answer,
        category=present.get("category", "").strip(),
        l2_category=present.get("l2-category", "").strip(),
        split=present.get("split", "").strip(),
        cycle=present.get("cycle_category", "").strip(),
        group=present.get("g_index", "").strip(),
    )


def _base64_items(value: str) -> list[str]:
    """One picture, or the items of a list as Python writes it. No character of base64 would have to be quoted in it."""
    if not value.startswith("["):
        return [value]
    return [item.strip().strip("'\"") for item in value.strip("[]").split(",")]


def _path_items(value: str) -> list[str]:
    """One path, or the items of a list as Python writes it."""
    if not value.startswith("["):
        return [value]
    try:
        return [str(item) for item in ast.literal_eval(value)]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise PictureError(f"the list {value[:60]!r} is not well-formed") from error
