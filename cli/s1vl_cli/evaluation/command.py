"""The command: reads, asks, reports."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation.client import Client
from s1vl_cli.evaluation.dataset import Dataset, read
from s1vl_cli.evaluation.progress import Asking, Reading, console
from s1vl_cli.evaluation.report import lines_of, report_of, table_of
from s1vl_cli.evaluation.results import DatasetFacts, Header, Results, Settings
from s1vl_cli.evaluation.run import StoppedError, run

DONE, SOME_FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    dataset: Path
    base_url: str
    api_key: str
    model: str
    mode: Literal["thinking-with-images", "reasoning"] | None
    concurrency: int
    limit: int | None
    max_tokens: int | None
    timeout: float
    out: Path | None
    json: bool


def evaluate(options: Options) -> int:
    """Run an evaluation, or go on with one; returns the exit status."""
    screen = console()
    try:
        with Reading(screen, options.dataset) as reading:
            dataset = read(options.dataset, reading)
        return asyncio.run(_Evaluation(options, dataset, screen).run())
    except CommandError as error:
        screen.print(f"[red bold]error:[/red bold] {escape(str(error))}")
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Evaluation:
    def __init__(self, options: Options, dataset: Dataset, screen: Console) -> None:
        self._options = options
        self._dataset = dataset
        self._screen = screen
        self._wanted = dataset.questions[: options.limit]

    async def run(self) -> int:
        """Ask what is left and print the report, whatever happened. Cancelled, it does so too."""
        options = self._options
        client = Client(options.base_url, options.api_key, timeout=options.timeout, connections=options.concurrency)
        async with client:
            settings = Settings(
                model=options.model or await client.model(), mode=options.mode, max_tokens=options.max_tokens
            )
            facts = DatasetFacts(
                name=self._dataset.path.name, sha256=self._dataset.sha256, questions=len(self._dataset.questions)
            )
            header = Header(dataset=facts, settings=settings)
            out = options.out or Path(f"{options.dataset.stem}.results.jsonl")
            with Results(out, header) as results:
                try:
                    return await self._ask(client, results, settings)
                finally:
                    if results.answered or results.failed:
                        self._print(results, header)

    async def _ask(self, client: Client, results: Results, settings: Settings) -> int:
        wanted = frozenset(question.index for question in self._wanted)
        try:
            with Asking(self._screen, results, wanted) as told:
                await run(
                    client,
                    self._dataset,
                    self._wanted,
                    results,
                    settings,
                    concurrency=self._options.concurrency,
                    told=told,
                )
        except StoppedError as error:
            self._screen.print(f"[red bold]stopped:[/red bold] {escape(str(error))}")
        return DONE if results.answered.keys() >= wanted else SOME_FAILED

    def _print(self, results: Results, header: Header) -> None:
        report = report_of(self._dataset, self._wanted, results, header)
        output = Console(highlight=False, soft_wrap=True)
        if self._options.json:
            output.out(json.dumps(report.json()))
            return
        output.print(table_of(report))
        for line in (*lines_of(report), f"Results: {results.path}"):
            output.print(escape(line))
