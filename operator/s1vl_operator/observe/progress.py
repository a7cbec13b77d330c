"""Whether an engine computes: from two of vLLM's counters, read again and again.

vLLM's `/health` stays 200 while its engine core hangs. What tells a hung engine from a busy one is
`vllm:iteration_tokens_total`, a histogram whose count grows by one with every step of the engine, beside
`vllm:num_requests_running`. Both are there from the start and carry the label `engine`, one for each engine core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

RUNNING = "vllm:num_requests_running"
STEPS = "vllm:iteration_tokens_total_count"


@dataclass(frozen=True)
class Reading:
    """One engine core at one moment.

    Attributes:
        running: requests that it works on.
        steps: steps that it has made since it started.
    """

    running: float
    steps: float


Readings = Mapping[str, Reading]
"""By the label `engine`."""


@dataclass(frozen=True)
class Standing:
    """What is known of a pod's engine cores after its last reading.

    Attributes:
        readings: the last ones.
        since: the moment since which a core has had requests and made no step; cores that are idle are left out.
        hung: cores that had requests and made no step for too long, and have made none since.
    """

    readings: Readings
    since: Mapping[str, float]
    hung: frozenset[str]


def read_metrics(text: str) -> Readings:
    """The two numbers of each engine core in an answer of `/metrics`; those that lack one of them are left out.

    Raises:
        ValueError: a line is not in Prometheus's text format.
    """
    # The whole text has hundreds of histogram buckets: only what is wanted is worth parsing.
    wanted = "\n".join(line for line in text.splitlines() if line.startswith((RUNNING, STEPS)))
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(wanted + "\n"):
        for sample in family.samples:
            found.setdefault(sample.labels.get("engine", ""), {})[sample.name] = sample.value
    return {
        engine: Reading(values[RUNNING], values[STEPS])
        for engine, values in found.items()
        if RUNNING in values and STEPS in values
    }


def has_moved(before: Readings, after: Readings) -> bool:
    """Whether an engine core has made a step between two readings."""
    return any(engine in before and before[engine].steps != one.steps for engine, one in after.items())


def advance(before: Standing | None, readings: Readings, now: float, timeout: float) -> Standing:
    """Add one more reading.

    A counter that restarted has moved as well, so a container that was replaced begins anew. A core that was hung and
    lost its requests, because they were taken elsewhere, is hung until it makes a step.

    Args:
        before: after the reading before; None for the first one, or after a pod did not answer.
        readings: the new ones.
        now: seconds on any clock that only goes forward.
        timeout: seconds without a step after which a core that has requests is hung.
    """
    since: dict[str, float] = {}
    hung: set[str] = set()
    for engine, reading in readings.items():
        old = before.readings.get(engine) if before else None
        still = before if before and old and old.steps == reading.steps else None
        if reading.running > 0:
            since[engine] = still.since.get(engine, now) if still else now
        if still and (engine in still.hung or now - since.get(engine, now) >= timeout):
            hung.add(engine)
    return Standing(readings, since, frozenset(hung))
