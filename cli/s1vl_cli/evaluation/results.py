"""The file of results: a header that says what was asked of whom, then one JSON line for each answer, as they come.

A line is written at once and whole. Whatever ends the program leaves at most one line torn, which the next run removes.
Of several lines about one question the last one counts.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from s1vl_cli.errors import CommandError

FORMAT: Literal[1] = 1
_ANOTHER = "Name another file with --out."


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Usage(_Model):
    """Tokens of all turns, as the server counts them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Answered(_Model):
    """A question that was answered.

    Attributes:
        index: The question's.
        prediction: The final answer, word for word.
        extracted: The letter found in it, `Z` for none.
        correct: It is the right one.
        category: The question's.
        seconds: From the request that was answered to its answer.
        stop_reason: s1vl's, or the `finish_reason` of another server.
        turns: How many the model took; None where the server does not say.
        usage: None where the server does not say.
    """

    index: str
    prediction: str
    extracted: str
    correct: bool
    category: str
    seconds: float
    stop_reason: str
    turns: int | None
    usage: Usage | None


class Failed(_Model):
    """A question that got no answer, which is asked again in the next run.

    Attributes:
        index: The question's.
        failed: Why.
        status: The HTTP status of the last attempt, None where it did not come to one.
        seconds: All attempts and the waiting between them.
    """

    index: str
    failed: str
    status: int | None
    seconds: float


class DatasetFacts(_Model):
    """Which data set it is."""

    name: str
    sha256: str
    questions: int


class Settings(_Model):
    """What changes the answers. Where the server is and how fast it is asked does not."""

    model: str
    mode: Literal["thinking-with-images", "reasoning"] | None
    max_tokens: int | None


class Header(_Model):
    """The first line."""

    s1vl_eval: Literal[1] = FORMAT
    dataset: DatasetFacts
    settings: Settings


_RECORD: TypeAdapter[Answered | Failed] = TypeAdapter(Answered | Failed)


class Results:
    """An open file of results. Only one process may have it open; use it as a context manager.

    Args:
        path: Made where there is none.
        header: Of this run.

    Attributes:
        answered: By index.
        failed: By index, those that were not answered later.

    Raises:
        CommandError: The file is another data set's or has other settings, is not a file of results, is being written
            by another process, or cannot be written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.answered: dict[str, Answered] = {}
        self.failed: dict[str, Failed] = {}
        try:
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}") from error
        try:
            self._lock()
            with path.open("rb") as lines:
                self._load(lines, header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, record: Answered | Failed) -> None:
        """Write a line and take it into account.

        Raises:
            CommandError: The file cannot be written.
        """
        self._write(record)
        self._take(record)

    def _take(self, record: Answered | Failed) -> None:
        self.answered.pop(record.index, None)
        self.failed.pop(record.index, None)
        if isinstance(record, Answered):
            self.answered[record.index] = record
        else:
            self.failed[record.index] = record

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(f"{self.path} is being written by another run") from error

    def _load(self, lines: BinaryIO, header: Header) -> None:
        first = lines.readline()
        if not first.endswith(b"\n"):
            if first and not _line(header).startswith(first):
                raise CommandError(f"{self.path} is not a file of results: its first line is no header")
            self._file.truncate(0)
            self._write(header)
            return
        check_same(self.path, first, header)
        end = len(first)
        for number, line in enumerate(lines, 2):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                return
            end += len(line)
            try:
                self._take(_RECORD.validate_json(line))
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise CommandError(f"{self.path}, line {number}: this is not a result: {reason}") from error

    def _write(self, model: BaseModel) -> None:
        rest = memoryview(_line(model))
        try:
            while rest:
                rest = rest[os.write(self._file.fileno(), rest) :]
        except OSError as error:
            raise CommandError(f"{self.path} cannot be written: {error.strerror}") from error


def check_same(path: Path, line: bytes, header: Header) -> None:
    """Compare the header of a file with that of this run.

    Raises:
        CommandError: They differ, or the line is no header.
    """
    try:
        found = Header.model_validate_json(line)
    except ValidationError as error:
        raise CommandError(f"{path} is not a file of results: its first line is no header") from error
    if found.dataset.sha256 != header.dataset.sha256:
        raise CommandError(f"{path} belongs to another data set: {_dataset(found)}, not {_dataset(header)}. {_ANOTHER}")
    differences = _differences(found.settings.model_dump(), header.settings.model_dump())
    if differences:
        raise CommandError(f"{path} has other settings: {differences}. {_ANOTHER}")


def _dataset(header: Header) -> str:
    return f"{header.dataset.name} ({header.dataset.questions} questions, sha256 {header.dataset.sha256[:12]})"


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} is {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name])


def _line(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump()).encode() + b"\n"
