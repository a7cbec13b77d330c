"""A small soak: the real program between stand-ins that fail, and clients that hang up. `make bench PARTS=soak` is the
large one."""

from __future__ import annotations

from bench.soak import soak


async def test_every_job_is_answered_and_nothing_is_left() -> None:
    outcome = await soak(200, warm_up=20, rate=0.03)
    assert outcome.problems == []
    assert sum(outcome.ends.values()) == 220
    assert outcome.ends["answer"] > 150
    # Both parties failed, or it shows nothing.
    assert outcome.faults["engine"] > 0
    assert outcome.faults["sandbox"] > 0
    assert outcome.left == {"sessions": 0, "files": 0, "tasks": 0, "descriptors": 0}
