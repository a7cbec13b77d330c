"""The program's command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_wrong_setting_is_named() -> None:
    env = {**os.environ, "S1VL_SANDBOX_MAX_SESSIONS": "none"}
    done = subprocess.run([sys.executable, "-m", "s1vl_sandbox"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("s1vl-sandbox: S1VL_SANDBOX_MAX_SESSIONS: Input should be a valid integer")


def test_storage_init_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "s1vl_sandbox", "storage-init", "--root", str(tmp_path), "--sub-path", "../x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("storage-init: sub path '../x'")


def test_a_kernel_whose_server_is_gone_already_does_not_start(tmp_path: Path) -> None:
    command = "from s1vl_sandbox.kernel_main import main; main()"
    limits = json.dumps({"memory_bytes": 0, "file_bytes": 0, "open_files": 0, "processes": 0})
    somebody_else = str(os.getppid())
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path / "none"), limits, somebody_else],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "server that started this kernel is gone" in done.stderr
