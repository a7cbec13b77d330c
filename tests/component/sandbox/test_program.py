"""The program's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


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


@pytest.mark.parametrize(
    ("name", "value"), [("STATE_DIR", "nowhere"), ("REQUIRE_ISOLATION", "some"), ("LOG_FORMAT", "xml")]
)
def test_a_wrong_setting_of_the_host_is_named(tmp_path: Path, name: str, value: str) -> None:
    env = {**os.environ, "S1VL_SANDBOX_STATE_DIR": str(tmp_path), f"S1VL_SANDBOX_{name}": value}
    command = [sys.executable, "-m", "s1vl_sandbox", "kernels"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"S1VL_SANDBOX_{name}" in done.stderr


def test_a_host_whose_server_is_gone_already_ends(tmp_path: Path) -> None:
    somebody_else = str(os.getppid())
    done = subprocess.run(
        [sys.executable, "-m", "s1vl_sandbox", "kernels", "--parent", somebody_else],
        env={**os.environ, "S1VL_SANDBOX_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "host.sock").exists()
