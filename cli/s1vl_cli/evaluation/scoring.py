"""Accuracies from right and wrong answers, as VLMEvalKit's `report_acc` and `report_acc_hrbench` count them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from s1vl_cli.evaluation.questions import Question

OVERALL = "Overall"
AVERAGE = "Average"


@dataclass(frozen=True, slots=True)
class Score:
    """One accuracy.

    Attributes:
        part: The cycle or split that it is of, `Average` for the mean of all cycles, "" for the whole.
        level: `Overall`, `l2-category` or `category`.
        name: The category's name; `Overall` for all.
        n: How many questions count.
        correct: How many of them were answered rightly.
        accuracy: From 0 to 1, not rounded: `correct / n`, but for `Average` the mean of the cycles' accuracies.
    """

    part: str
    level: str
    name: str
    n: int
    correct: int
    accuracy: float


def scores_of(questions: Iterable[Question], hits: Mapping[str, bool]) -> list[Score]:
    """All accuracies, the most general first.

    A question without an answer does not count. Questions with `group` count as one, right where all its rotations are
    (circular evaluation), once all are answered. Questions with `cycle` are counted for each cycle, then averaged
    (HRBench); those with `split` for each split.

    Args:
        questions: The whole data set.
        hits: Whether the answer was right, by index, for each that was answered.
    """
    counted = _merged(questions, hits)
    if any(question.cycle for question, _ in counted):
        cycles = [_levels(key, part) for key, part in _by(counted, lambda question: question.cycle)]
        return [*_average([score for cycle in cycles for score in cycle]), *(s for cycle in cycles for s in cycle)]
    return [score for key, part in _by(counted, lambda question: question.split) for score in _levels(key, part)]


def overall(scores: list[Score]) -> float | None:
    """The one number: the cycles' average, or the share of right answers. None where nothing was answered."""
    totals = [score for score in scores if score.level == OVERALL]
    if totals and totals[0].part == AVERAGE:
        return totals[0].accuracy
    return sum(score.correct for score in totals) / sum(score.n for score in totals) if totals else None


_Counted = tuple[Question, bool]


def _merged(questions: Iterable[Question], hits: Mapping[str, bool]) -> list[_Counted]:
    rotations: dict[str, list[Question]] = {}
    for question in questions:
        rotations.setdefault(question.group or f"={question.index}", []).append(question)
    counted = []
    for group, members in rotations.items():
        if all(member.index in hits for member in members):
            first = next((member for member in members if member.index == group), members[0])
            counted.append((first, all(hits[member.index] for member in members)))
    return counted


def _levels(part: str, counted: list[_Counted]) -> list[Score]:
    scores = [_score(part, OVERALL, OVERALL, counted)]
    for level, name_of in (
        ("l2-category", lambda question: question.l2_category),
        ("category", lambda question: question.category),
    ):
        scores += [_score(part, level, name, some) for name, some in _by(counted, name_of) if name]
    return scores


def _score(part: str, level: str, name: str, counted: list[_Counted]) -> Score:
    correct = sum(hit for _, hit in counted)
    return Score(part, level, name, len(counted), correct, correct / len(counted))


def _average(scores: list[Score]) -> list[Score]:
    same: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        same.setdefault((score.level, score.name), []).append(score)
    return [
        Score(
            part=AVERAGE,
            level=level,
            name=name,
            n=sum(score.n for score in cycles),
            correct=sum(score.correct for score in cycles),
            accuracy=sum(score.accuracy for score in cycles) / len(cycles),
        )
        for (level, name), cycles in same.items()
    ]


def _by(counted: list[_Counted], key_of: Callable[[Question], str]) -> list[tuple[str, list[_Counted]]]:
    """Groups of one key each, numbers in the order of numbers."""
    groups: dict[str, list[_Counted]] = {}
    for question, hit in counted:
        groups.setdefault(key_of(question), []).append((question, hit))
    return sorted(groups.items(), key=lambda group: _order(group[0]))


def _order(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdecimal() else (1, 0, key)
