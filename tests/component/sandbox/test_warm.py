"""What the kernel host imports ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PICTURE_AND_FIGURE = ["image/png", "image/jpeg", "image/png"]


def rehearse(*words: str) -> dict[str, Any]:
    program = Path(__file__).with_name("rehearsal.py")
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, program, folder, *words],
            env={"PATH": os.environ["PATH"], "HOME": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["error"] is None
    return report


def test_a_kernel_imports_nothing_that_the_host_has_not() -> None:
    report = rehearse()
    assert report["imported"] == []
    assert report["displayed"] == PICTURE_AND_FIGURE


def test_a_kernel_that_is_started_before_all_is_imported_does_the_same() -> None:
    report = rehearse("early")
    assert "matplotlib.pyplot" in report["imported"]
    assert report["displayed"] == PICTURE_AND_FIGURE
