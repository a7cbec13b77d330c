"""What follows from an engine's version."""

from __future__ import annotations

import pytest

from s1vl_orchestrator.engine_versions import UNKNOWN, Facts, facts_of

OLD, NEW = Facts(thinking=("reasoning_content",)), Facts(thinking=("reasoning",))


@pytest.mark.parametrize(
    ("version", "facts"),
    [
        ("0.11.0", OLD),
        ("v0.11.0", OLD),
        ("0.11.0+cu128", OLD),
        ("0.11.1", NEW),
        ("0.11.2.post1", NEW),
        ("0.12", NEW),
        ("0.32.0+cpu", NEW),
        ("1.0.0", NEW),
        # Neither a release nor silence says which way it is.
        ("0.11.1rc2.dev141+g38b1f4a9d", UNKNOWN),
        ("0.11.1rc1", UNKNOWN),
        ("dev", UNKNOWN),
        ("", UNKNOWN),
        ("0.11.1\n", UNKNOWN),
    ],
)
def test_facts(version: str, facts: Facts) -> None:
    assert facts_of(version) == facts
