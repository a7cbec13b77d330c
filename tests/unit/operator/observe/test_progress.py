from __future__ import annotations

import pytest

from s1vl_operator.observe.progress import Reading, Standing, advance, read_metrics

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="ScienceOne-AI/S1-VL-32B"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="ScienceOne-AI/S1-VL-32B"} 5.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="ScienceOne-AI/S1-VL-32B"} 2400.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="ScienceOne-AI/S1-VL-32B"} 2500.0
vllm:iteration_tokens_total_count{engine="0",model_name="ScienceOne-AI/S1-VL-32B"} 2500.0
vllm:iteration_tokens_total_sum{engine="0",model_name="ScienceOne-AI/S1-VL-32B"} 91000.0
"""


def test_the_two_numbers_are_found_among_all_others() -> None:
    assert read_metrics(METRICS) == {"0": Reading(running=2, steps=2500)}


def test_each_engine_core_is_read_and_one_without_both_numbers_left_out() -> None:
    text = METRICS + 'vllm:num_requests_running{engine="1"} 1\nvllm:iteration_tokens_total_count{engine="1"} 7\n'
    text += 'vllm:num_requests_running{engine="2"} 1\n'
    assert read_metrics(text) == {"0": Reading(2, 2500), "1": Reading(1, 7)}
    assert read_metrics("") == {}
    assert read_metrics("<html>not found</html>") == {}


@pytest.mark.parametrize("text", ["vllm:num_requests_running{ 1", "vllm:num_requests_running many"])
def test_a_line_that_is_no_metric_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_metrics(text)


# A row is a history: the moment of a reading, then requests running and steps made; and whether it hangs in the end.
HISTORIES = {
    "idle": ([(0, 0, 10), (60, 0, 10), (600, 0, 10)], False),
    "busy and moving": ([(0, 1, 10), (60, 1, 11), (600, 32, 12)], False),
    "slow": ([(0, 1, 10), (119, 1, 10)], False),
    "hung": ([(0, 1, 10), (15, 1, 10), (120, 3, 10)], True),
    "hung at its very first request": ([(0, 0, 0), (15, 1, 0), (134, 1, 0), (135, 1, 0)], True),
    "not yet hung at its very first request": ([(0, 0, 0), (15, 1, 0), (134, 1, 0)], False),
    "moved, then stood still": ([(0, 1, 10), (60, 1, 11), (100, 1, 11), (179, 1, 11)], False),
    "hung, then went on": ([(0, 1, 10), (130, 1, 10), (140, 1, 11)], False),
    "hung, and its requests were taken elsewhere": ([(0, 1, 10), (130, 1, 10), (140, 0, 10), (900, 0, 10)], True),
    "hung, was idle, and went on": ([(0, 1, 10), (130, 1, 10), (140, 0, 10), (150, 1, 11)], False),
    "its requests were given up before": ([(0, 1, 10), (100, 1, 10), (110, 0, 10), (125, 1, 10)], False),
    "its counters restarted": ([(0, 1, 9000), (130, 1, 9000), (140, 1, 3)], False),
    "its counters restarted and it hung again": ([(0, 1, 9000), (110, 1, 3), (230, 1, 3)], True),
}


@pytest.mark.parametrize(("history", "hung"), HISTORIES.values(), ids=HISTORIES)
def test_whether_it_hangs(history: list[tuple[float, float, float]], hung: bool) -> None:
    standing: Standing | None = None
    for now, running, steps in history:
        standing = advance(standing, {"0": Reading(running, steps)}, now, timeout=120)
    assert standing is not None
    assert bool(standing.hung) == hung


def test_one_core_that_hangs_beside_one_that_moves_counts() -> None:
    first = advance(None, {"0": Reading(1, 5), "1": Reading(1, 5)}, 0, timeout=120)
    assert advance(first, {"0": Reading(1, 500), "1": Reading(1, 5)}, 130, timeout=120).hung == {"1"}


def test_after_silence_it_begins_anew() -> None:
    advance(None, {"0": Reading(1, 5)}, 0, timeout=120)
    assert not advance(None, {"0": Reading(1, 5)}, 500, timeout=120).hung
