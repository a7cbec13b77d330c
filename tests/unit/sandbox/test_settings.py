"""Settings, limits and the environment that kernels get."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from s1vl_sandbox.kernels.environment import kernel_environment
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.settings import Settings


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"key").hexdigest()
    monkeypatch.setenv("S1VL_SANDBOX_API_KEY_SHA256", f" {digest.upper()}\n")
    monkeypatch.setenv("S1VL_SANDBOX_MAX_SESSIONS", "3")
    monkeypatch.setenv("S1VL_SANDBOX_WORKSPACE", "/mnt/data/images")
    settings = Settings()
    assert (settings.api_key_sha256, settings.max_sessions, settings.workspace) == (digest, 3, "/mnt/data/images")
    assert (settings.port, settings.warm_kernels, settings.session_timeout_seconds) == (8080, 2, 1800)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key_sha256", "secret"),
        ("api_key_sha256", "g" * 64),
        ("max_sessions", 0),
        ("warm_kernels", 0),
        ("port", 70000),
        ("kernel_open_files", 3),
        ("log_format", "xml"),
        ("kernels", "threads"),
        ("require_isolation", "maybe"),
    ],
)
def test_nonsense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_a_limit_of_zero_is_told_as_none() -> None:
    limits = KernelLimits(1, 2, 3, 4, processes=5, disk_bytes=6, disk_entries=0)
    assert limits.describe() == {
        "memory_bytes": 1,
        "file_bytes": 2,
        "open_files": 3,
        "cpu_seconds": 4,
        "processes": 5,
        "disk_bytes": 6,
        "disk_entries": None,
    }


def test_kernels_get_nothing_of_the_servers_environment_but_what_is_listed() -> None:
    environ = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "S1VL_SANDBOX_API_KEY_SHA256": "ab",
        "AWS_SECRET_ACCESS_KEY": "x",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "PYTHONPATH": "/evil",
    }
    passed = kernel_environment(Path("/tmp/k"), environ)
    assert passed["PATH"] == "/bin"
    assert not {"S1VL_SANDBOX_API_KEY_SHA256", "AWS_SECRET_ACCESS_KEY", "KUBERNETES_SERVICE_HOST", "PYTHONPATH"} & set(
        passed
    )
    assert all(passed[name].startswith("/tmp/k/") for name in ("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"))
