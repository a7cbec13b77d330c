"""What the host imports and makes once, so that every kernel finds it in the memory that it shares with the host."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from s1vl_sandbox.protocol import Message

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0

# What model-written code does first, so that nothing of it is imported or made only then.
_CELLS = (
    "import numpy, cv2, PIL.Image, PIL.ImageDraw, PIL.ImageFont\nimport matplotlib.pyplot as plt",
    "display(PIL.Image.new('RGB', (8, 8), 'red'))",
    "plt.figure(); plt.plot([1, 2]); plt.title('t'); plt.show()",
    "PIL.Image.new('RGB', (8, 8)).save('a.png'); PIL.Image.new('RGB', (8, 8)).save('a.jpg')",
    "PIL.Image.open('a.png').convert('L').resize((4, 4)); PIL.Image.open('a.jpg').load(); cv2.imread('a.png')",
    "1 / 0",
)


def warm_up(folder: Path) -> Message:
    """Import, rehearse a kernel in a child, import what that one imported late, and freeze it all.

    Args:
        folder: Where to put what the libraries keep on disk; nothing of it is needed afterwards.

    Returns:
        Facts for people: seconds, modules, modules found by the rehearsal.
    """
    began = time.monotonic()
    # The debugger is of no use to a model, and importing it would be most of a kernel's start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")
    # Sets the numbers of threads, which libraries read when they are loaded: before the imports below.
    from s1vl_sandbox.kernels import environment  # noqa: PLC0415

    os.environ.update(environment.THREADS | environment.BACKEND)
    import cv2  # noqa: PLC0415
    import matplotlib.pyplot  # noqa: PLC0415
    import numpy  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    import s1vl_sandbox.kernels.child  # noqa: PLC0415

    del cv2, matplotlib, numpy, PIL, s1vl_sandbox
    late = _rehearse(folder)
    for name in late:
        # A module that only exists under circumstances is loaded by the kernel that needs it, as ever.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    # A collection in a kernel would write to every object's header and so copy every page.
    gc.freeze()
    return {"seconds": round(time.monotonic() - began, 3), "modules": len(sys.modules), "rehearsed": len(late)}


def _rehearse(folder: Path) -> list[str]:
    """Run a kernel and some cells in a child and return the modules it imported; none if it fails, which is logged."""
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="r", dir=folder, ignore_cleanup_errors=True) as stage:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _play(writer, Path(stage))
        os.close(writer)
        text = b""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with os.fdopen(reader, "rb", buffering=0) as report:
            while select.select([report], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if not (data := report.read(65536)):
                    break
                text += data
            else:
                os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        report_of_child: Message = json.loads(text)
    except ValueError:
        report_of_child = {"modules": [], "error": "it ended without a report"}
    if report_of_child["error"]:
        _log.warning("the rehearsal of a kernel failed, kernels will start slowly: %s", report_of_child["error"])
    return list(report_of_child["modules"])


def _play(writer: int, stage: Path) -> NoReturn:
    error = None
    known = set(sys.modules)
    try:
        from s1vl_sandbox.kernels.child import detach  # noqa: PLC0415
        from s1vl_sandbox.kernels.ipython import KernelApp  # noqa: PLC0415
        from s1vl_sandbox.limits import KernelLimits  # noqa: PLC0415

        detach(stage, KernelLimits(0, 0, 0, 0), os.getppid())
        (stage / "work").mkdir()
        os.chdir(stage / "work")
        app = KernelApp.prepare(stage)
        app.listen(b"rehearsal")
        for cell in _CELLS:
            app.kernel.shell.run_cell(cell)
    except BaseException as problem:
        error = repr(problem)
    try:
        report = {"modules": sorted(set(sys.modules) - known - {"__main__"}), "error": error}
        os.write(writer, json.dumps(report).encode())
    finally:
        os._exit(0)
