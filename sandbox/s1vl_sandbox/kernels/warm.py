"""What the host imports once, so that every kernel finds it in the memory that it shares with the host."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s1vl_sandbox.kernels import environment

# What a kernel is made of, and what almost all model-written code uses.
_FIRST = ("s1vl_sandbox.kernels.child", "numpy", "cv2", "PIL.Image", "PIL.JpegImagePlugin", "PIL.PngImagePlugin")

# Most of all imports, in pieces: whoever asks for a kernel meanwhile waits for one of them at most.
_FIGURES = (
    "matplotlib",
    "matplotlib.font_manager",
    "matplotlib.patches",
    "matplotlib.collections",
    "matplotlib.figure",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
)

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
    "PIL.PpmImagePlugin",
    "ipykernel.debugger",
    "pygments.formatters.terminal256",
    "stack_data",
    "tornado.platform.asyncio",
    "tornado.queues",
)


def import_first() -> None:
    """Import what a kernel must have."""
    # The debugger is of no use to a model, and importing it would be most of a kernel's start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    # The numbers of threads are read when libraries are loaded.
    os.environ.update(environment.THREADS | environment.BACKEND)
    for name in _FIRST:
        importlib.import_module(name)


def import_rest(state_dir: Path) -> Iterator[None]:
    """Import everything else, a piece at a time, and freeze it all.

    Libraries may write something below ``state_dir`` meanwhile; nothing of it is left.
    """
    for name in _LATE:
        # One that another version does not have is no harm: what it has instead, the kernel imports that needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        yield
    with tempfile.TemporaryDirectory(prefix="h", dir=state_dir) as folder:
        os.environ["MPLCONFIGDIR"] = folder
        for name in _FIGURES:
            importlib.import_module(name)
            yield
    # A collection in a kernel would write to every object's header and so copy every page.
    gc.freeze()
    gc.enable()
