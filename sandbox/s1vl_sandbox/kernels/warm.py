"""What the host imports once, so that every kernel finds it in the memory that it shares with the host."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path

from s1vl_sandbox.kernels import environment

# What model-written code uses, and what a kernel is made of.
_MODULES = ("cv2", "numpy", "PIL.Image", "matplotlib.pyplot", "s1vl_sandbox.kernels.child")

# What these import only when they are used. A kernel that had to do so itself would be slower and share less memory.
_LATE = (
    "faulthandler",
    "numpy.random",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "PIL.ImageMath",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.PpmImagePlugin",
    "ipykernel.debugger",
    "pygments.formatters.terminal256",
    "stack_data",
    "tornado.platform.asyncio",
    "tornado.queues",
)


def warm_up(state_dir: Path) -> None:
    """Import everything. Libraries may write something below ``state_dir`` meanwhile; nothing of it is left."""
    # The debugger is of no use to a model, and importing it would be most of a kernel's start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    # The numbers of threads are read when libraries are loaded.
    os.environ.update(environment.THREADS | environment.BACKEND)
    with tempfile.TemporaryDirectory(prefix="h", dir=state_dir) as folder:
        os.environ["MPLCONFIGDIR"] = folder
        for name in _MODULES:
            importlib.import_module(name)
        for name in _LATE:
            # One that another version does not have is no harm: what it has instead, the kernel imports that needs it.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
