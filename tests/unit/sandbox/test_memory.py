"""How much of its container's memory one kernel may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox.kernels.memory import container_bytes, within
from s1vl_sandbox.limits import KernelLimits

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "expected"),
    [(f"{2 * GIB}\n", 2 * GIB), ("max\n", 0), ("9223372036854771712\n", 0), (None, 0)],
    ids=["limited", "cgroup v2 without a limit", "cgroup v1 without a limit", "no cgroup"],
)
def test_the_containers_limit(tmp_path: Path, text: str | None, expected: int) -> None:
    file = tmp_path / "limit"
    if text is not None:
        file.write_text(text)
    assert container_bytes((tmp_path / "absent", file)) == expected


@pytest.mark.parametrize(
    ("asked", "container", "expected"),
    [
        (4 * GIB, 2 * GIB, 3 * GIB // 2),
        (GIB, 2 * GIB, GIB),
        (0, 2 * GIB, 3 * GIB // 2),
        (4 * GIB, 0, 4 * GIB),
        (0, 0, 0),
    ],
)
def test_one_kernel_leaves_something_to_the_others(asked: int, container: int, expected: int) -> None:
    limits = KernelLimits(memory_bytes=asked, file_bytes=1, open_files=64, cpu_seconds=60)
    assert within(limits, container).memory_bytes == expected
