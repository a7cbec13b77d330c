"""Progress lines with durations, and failures that name the log to read."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, soft_wrap=True)
LOG_LINES = 15


class Failure(RuntimeError):  # noqa: N818 - it is what the person sees, not a programming error
    """Something that the person at the terminal has to know; `log` is the file that says more."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log

    def __str__(self) -> str:
        text = super().__str__()
        if self.log is None:
            return text
        return f"{text}\nLog: {self.log}\n{last_lines(self.log)}".rstrip()


def last_lines(log: Path, count: int = LOG_LINES) -> str:
    """The last `count` lines of a file, indented; an empty text when it does not exist."""
    if not log.exists():
        return ""
    with log.open(errors="replace") as lines:
        return "\n".join(f"  | {line.rstrip()[:400]}" for line in deque(lines, count))


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `0.4 s`, `12 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


class Step:
    """One line of progress; `note` is what the finished line says after its name."""

    def __init__(self) -> None:
        self.note = ""


@contextlib.contextmanager
def step(what: str) -> Iterator[Step]:
    """Say what is being done while it is done, and how long it took afterwards."""
    started = time.monotonic()
    shown = Step()
    if not console.is_terminal:
        console.print(f"  ... {escape(what)}")
    try:
        with console.status(escape(what)) if console.is_terminal else contextlib.nullcontext():
            yield shown
    except BaseException:
        console.print(f"  [red]failed[/red] {escape(what)} after {duration(time.monotonic() - started)}")
        raise
    note = f", {shown.note}" if shown.note else ""
    console.print(f"  [green]ok[/green]  {escape(what + note)} ({duration(time.monotonic() - started)})")


def say(text: str) -> None:
    """One line that is not a step."""
    console.print(escape(text))


@contextlib.contextmanager
def exit_on_failure() -> Iterator[None]:
    """Print a Failure and end the program with status 1."""
    try:
        yield
    except Failure as error:
        fail(error)
        sys.exit(1)


def fail(error: BaseException) -> None:
    """Print a failure; with S1VL_TRACEBACK set, where it came from as well."""
    console.print(f"[red bold]error:[/red bold] {escape(str(error))}")
    if os.environ.get("S1VL_TRACEBACK"):
        console.print_exception()
