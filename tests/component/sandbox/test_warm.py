"""What the kernel host imports ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def test_a_kernel_imports_nothing_that_the_host_has_not() -> None:
    program = Path(__file__).with_name("rehearsal.py")
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, program, folder],
            env={"PATH": os.environ["PATH"], "HOME": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert json.loads(done.stdout) == [], done.stderr
