"""How far a run is: one bar on a terminal, else a line now and then. All of it on stderr."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from s1vl_cli.evaluation.results import Answered, Failed, Results

SECONDS_BETWEEN_LINES = 15.0


def console() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def line(*, done: int, total: int, right: int, failed: int, asked: int, seconds: float) -> str:
    """One line about a run.

    Args:
        done: Questions that need not be asked (again) in this run, failed ones included.
        total: Questions that are wanted.
        right: Rightly answered ones.
        failed: Those without an answer.
        asked: How many of `done` this run asked.
        seconds: How long it has taken for them.
    """
    text = f"{done}/{total}"
    if asked and seconds:
        text += f", {60 * asked / seconds:.1f} a minute"
        if done < total:
            text += f", {duration((total - done) * seconds / asked)} left"
    if done > failed:
        text += f", accuracy {100 * right / (done - failed):.1f} %"
    return text + (f", {failed} failed" if failed else "")


class Reading:
    """Progress of the first pass over the data set. Use it as a context manager and call it with numbers of bytes."""

    def __init__(self, screen: Console, path: Path) -> None:
        self._screen = screen
        self._path = path
        self._size = path.stat().st_size if path.is_file() else None
        self._progress = Progress(
            TextColumn("Reading {task.description}"), BarColumn(), DownloadColumn(),
            console=screen, transient=True, disable=not screen.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(escape(path.name), total=self._size)

    def __call__(self, size: int) -> None:
        """So many bytes more were read."""
        self._progress.advance(self._task, size)

    def __enter__(self) -> Self:
        self._progress.start()
        if not self._screen.is_terminal and self._size:
            self._screen.print(f"  ... reading {escape(self._path.name)} ({decimal(self._size)})")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class Asking:
    """Progress of the questions. Use it as a context manager and call it with each record.

    Args:
        screen: Where it is shown.
        results: What was answered before; right and wrong are counted in it.
        wanted: Indices of the questions that are wanted.
    """

    def __init__(self, screen: Console, results: Results, wanted: frozenset[str]) -> None:
        before = [record for index, record in results.answered.items() if index in wanted]
        self._screen = screen
        self._total = len(wanted)
        self._answered = self._before = len(before)
        self._right = sum(record.correct for record in before)
        self._failed = 0
        self._started = self._shown = time.monotonic()
        self._bar = Progress(
            BarColumn(), TextColumn("{task.description}"), console=screen, disable=not screen.is_terminal
        )
        self._task: TaskID = self._bar.add_task(self._line(), total=self._total, completed=self._before)

    def __call__(self, record: Answered | Failed) -> None:
        """One question more is done."""
        if isinstance(record, Answered):
            self._answered += 1
            self._right += record.correct
        else:
            self._failed += 1
        done = self._answered + self._failed
        self._bar.update(self._task, completed=done, description=self._line())
        now = time.monotonic()
        if not self._screen.is_terminal and (now > self._shown + SECONDS_BETWEEN_LINES or done == self._total):
            self._shown = now
            self._screen.print(f"  {self._line()}")

    def __enter__(self) -> Self:
        if self._screen.is_terminal:
            self._bar.start()
        elif self._before < self._total:
            self._screen.print(f"  ... asking {self._total - self._before} of {self._total} questions")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _line(self) -> str:
        done = self._answered + self._failed
        return line(
            done=done,
            total=self._total,
            right=self._right,
            failed=self._failed,
            asked=done - self._before,
            seconds=time.monotonic() - self._started,
        )
