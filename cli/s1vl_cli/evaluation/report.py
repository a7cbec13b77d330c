"""What came of an evaluation, as numbers and as a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from s1vl_cli.evaluation.dataset import Dataset
from s1vl_cli.evaluation.matching import NONE
from s1vl_cli.evaluation.progress import duration
from s1vl_cli.evaluation.questions import Question
from s1vl_cli.evaluation.results import Answered, Header, Results
from s1vl_cli.evaluation.scoring import OVERALL, Score, overall, scores_of


@dataclass(frozen=True, slots=True)
class Means:
    """Means over the answered questions for which the server said it; None where it did for none."""

    seconds: float | None
    turns: float | None
    prompt_tokens: float | None
    completion_tokens: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome.

    Attributes:
        header: Data set and settings.
        without_picture: Rows of the data set that were left out.
        wanted: Questions.
        answered: How many of them were.
        failed: How many got no answer. They count neither as right nor as wrong.
        not_asked: How many are left.
        no_option: Answers in which no option was found; they are wrong.
        accuracy: The one number, from 0 to 1; None where nothing counts.
        scores: All accuracies.
        means: Of the answered ones.
        stop_reasons: How often the answers ended how.
        failures: How often what went wrong.
    """

    header: Header
    without_picture: int
    wanted: int
    answered: int
    failed: int
    not_asked: int
    no_option: int
    accuracy: float | None
    scores: list[Score]
    means: Means
    stop_reasons: dict[str, int]
    failures: dict[str, int]

    def json(self) -> dict[str, Any]:
        """All of it for machines; accuracies are not rounded."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("header", "scores", "means")}
        scores = [asdict(score) for score in self.scores]
        return {
            **self.header.model_dump(exclude={"s1vl_eval"}),
            **values,
            "scores": scores,
            "means": asdict(self.means),
        }


def report_of(dataset: Dataset, wanted: Sequence[Question], results: Results, header: Header) -> Report:
    """Count what `results` has about the questions that are wanted."""
    answered = [results.answered[q.index] for q in wanted if q.index in results.answered]
    failed = [results.failed[q.index] for q in wanted if q.index in results.failed]
    scores = scores_of(dataset.questions, {record.index: record.correct for record in answered})
    return Report(
        header=header,
        without_picture=dataset.without_picture,
        wanted=len(wanted),
        answered=len(answered),
        failed=len(failed),
        not_asked=len(wanted) - len(answered) - len(failed),
        no_option=sum(record.extracted == NONE for record in answered),
        accuracy=overall(scores),
        scores=scores,
        means=_means(answered),
        stop_reasons=dict(Counter(record.stop_reason for record in answered).most_common()),
        failures=dict(Counter(record.failed for record in failed).most_common()),
    )


def _means(answered: Sequence[Answered]) -> Means:
    usages = [record.usage for record in answered if record.usage]
    return Means(
        seconds=_mean([record.seconds for record in answered]),
        turns=_mean([record.turns for record in answered if record.turns is not None]),
        prompt_tokens=_mean([usage.prompt_tokens for usage in usages]),
        completion_tokens=_mean([usage.completion_tokens for usage in usages]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def table_of(report: Report) -> Table:
    """The accuracies in percent, with one decimal as they are published."""
    settings = report.header.settings
    title = f"{report.header.dataset.name}, {settings.model}" + (f", {settings.mode}" if settings.mode else "")
    table = Table(title=escape(title), title_justify="left")
    parts = len({score.part for score in report.scores}) > 1
    if parts:
        table.add_column("part")
    table.add_column("category")
    for name in ("n", "right", "accuracy %"):
        table.add_column(name, justify="right")
    for score in report.scores:
        style = "bold" if score.level == OVERALL else None
        cells = [score.name, str(score.n), str(score.correct), f"{100 * score.accuracy:.1f}"]
        table.add_row(*([escape(score.part)] if parts else []), escape(cells[0]), *cells[1:], style=style)
    return table


def lines_of(report: Report) -> list[str]:
    """What stands below the table."""
    counts = [
        f"{report.answered} of {report.wanted} answered",
        f"{report.failed} failed" + (" (run it again to ask them again)" if report.failed else ""),
    ]
    if report.not_asked:
        counts.append(f"{report.not_asked} not asked")
    if report.no_option:
        counts.append(f"{report.no_option} named no option, which counts as wrong")
    if report.without_picture:
        counts.append(f"{report.without_picture} rows have no picture and were left out")
    lines = [", ".join(counts)]
    means = report.means
    if means.seconds is not None:
        text = f"Mean of an answer: {duration(means.seconds)}"
        if means.turns is not None:
            text += f", {means.turns:.1f} turns"
        if means.prompt_tokens is not None and means.completion_tokens is not None:
            text += f", {means.prompt_tokens:,.0f} tokens of prompts and {means.completion_tokens:,.0f} said"
        lines.append(text)
    if report.stop_reasons:
        lines.append("Ended by: " + ", ".join(f"{name or 'unknown'} {n}" for name, n in report.stop_reasons.items()))
    return lines + [f"Failed {n} times: {reason}" for reason, n in list(report.failures.items())[:5]]
