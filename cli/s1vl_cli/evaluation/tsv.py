"""Rows of a TSV file whose lines may have hundreds of megabytes, one at a time and from any offset."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Self

from s1vl_cli.errors import CommandError

MAX_ROW_BYTES = 256 * 1024 * 1024
"""More than any picture that a server takes; what is larger comes from a quote that is never closed."""

_LONG = re.compile(rb"[A-Za-z0-9+/=]{4096,}")
_LIFTED = re.compile("\0([0-9]+)\0")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: Counted from 1, the header being 0.
        offset: Where it begins in the file, in bytes.
        fields: Its values, unquoted.
    """

    number: int
    offset: int
    fields: list[str]


class Reader:
    """Iterates over the rows of a file, quoted as pandas does it. Blank lines are left out.

    Args:
        file: Opened in binary mode; read from where it stands.
        each: Called with the bytes of every line, in order.
    """

    def __init__(self, file: BinaryIO, each: Callable[[bytes], object] | None = None) -> None:
        csv.field_size_limit(MAX_ROW_BYTES)
        self._lines = _Lines(file, each)
        self._csv = csv.reader(self._lines, delimiter="\t")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        """The next row.

        Raises:
            CommandError: It is too large or not text.
        """
        lines = self._lines
        fields: list[str] = []
        while not fields:
            lines.begin_row()
            try:
                fields = next(self._csv)
            except csv.Error as error:
                raise CommandError(f"row {lines.number} is not well-formed: {error}") from error
        row = Row(lines.number, lines.row_offset, [lines.put_back(field) for field in fields])
        lines.number += 1
        return row


class _Lines:
    """Lines as csv takes them, without long runs of base64.

    csv needs a turn of a loop and four bytes for each character, which is too much for megabytes of it. This knows no
    reader: in a cycle of references a large row would live on until the garbage collector comes by.
    """

    def __init__(self, file: BinaryIO, each: Callable[[bytes], object] | None) -> None:
        self.number = 0
        self.row_offset = 0
        self._file = file
        self._each = each
        self._offset = file.tell()
        self._lifted: list[bytes] = []

    def begin_row(self) -> None:
        self.row_offset, self._lifted = self._offset, []

    def put_back(self, field: str) -> str:
        return _LIFTED.sub(lambda found: self._lifted[int(found.group(1))].decode(), field)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        start, self._offset = self._offset, self._offset + len(line)
        if self._offset - self.row_offset > MAX_ROW_BYTES:
            raise CommandError(f"row {self.number} has over {MAX_ROW_BYTES} bytes; is a quote never closed?")
        if b"\0" in line:
            raise CommandError(f"row {self.number} has a NUL byte: this is not a text file")
        if self._each:
            self._each(line)
        try:
            return _LONG.sub(self._lift, line).decode("utf-8-sig" if start == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise CommandError(f"row {self.number} is not UTF-8: {error}") from error

    def _lift(self, found: re.Match[bytes]) -> bytes:
        self._lifted.append(found.group())
        return b"\0%d\0" % (len(self._lifted) - 1)
