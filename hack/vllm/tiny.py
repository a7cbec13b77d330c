"""The folder of the tiny Qwen3-VL, in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hack.cluster.paths import CACHE
from hack.ui import Failure, step
from hack.vllm import install

_PROGRAM = Path(__file__).with_name("tiny_model.py")
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_TIMEOUT = 300.0


def ensure(python: Path) -> Path:
    """Return the model's folder, which `python`, vLLM's own, writes first where it is missing.

    Raises:
        Failure: It could not be written; says why.
    """
    made_from = "\0".join((install.folder().name, _PROGRAM.read_text(), _TEMPLATE.read_text()))
    folder = CACHE / f"vllm-tiny-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    part = Path(tempfile.mkdtemp(dir=CACHE, prefix="vllm-tiny-part-"))
    try:
        with step("write the tiny Qwen3-VL"):
            _write(python, part)
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():  # else another run was quicker, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(python: Path, folder: Path) -> None:
    command = [str(python), str(_PROGRAM), str(folder)]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT, env=environment)
    if ended.returncode:
        raise Failure(f"writing the tiny model ended with {ended.returncode}:\n{ended.stderr.strip()}")
