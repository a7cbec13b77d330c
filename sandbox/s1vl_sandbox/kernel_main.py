"""The program of one kernel process: arguments are its connection file, its limits as JSON and the server's process id.

It limits itself first, then imports what cells usually import (so that a kernel taken from the pool is warm), then
becomes an ordinary IPython kernel whose output is bounded.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

from ipykernel import iostream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell

from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.outputs import HeadTail, OutputLimits, cut, cut_mime, cut_traceback
from s1vl_sandbox.processes import become_subreaper, die_with_parent

LIMITS = OutputLimits()

# What child processes print is read in pieces of this size; ipykernel's 1000 bytes make a flood take minutes.
iostream.PIPE_BUFFER_SIZE = 64 * 1024


class _Cut:
    """Whether something of the running cell was left out; the reply tells the server."""

    happened = False


class BoundedOutStream(iostream.OutStream):  # type: ignore[misc]  # ipykernel has no types that mypy follows here
    """stdout or stderr of a cell: the head passes, the end is kept until the cell ends.

    Bounding here and not on the wire is what makes a cell that prints 1 GiB cheap for the server.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._bound = HeadTail(LIMITS.text_chars // 2)
        super().__init__(*args, **kwargs)

    def write(self, string: str) -> int | None:
        """Write as much as the bound of this cell lets through; claim that all was written."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        shown = self._bound.write(string)
        if len(shown) < len(string) and self._bound.missing:
            _Cut.happened = True
        if shown:
            super().write(shown)
        return len(string)

    def end_cell(self) -> None:
        """Write the remembered end and start counting anew."""
        rest = self._bound.finish()
        self._bound = HeadTail(LIMITS.text_chars // 2)
        if rest:
            super().write(rest)


class BoundedShell(ZMQInteractiveShell):  # type: ignore[misc]
    """The IPython shell with bounded results and tracebacks."""

    def init_display_formatter(self) -> None:
        """Bound every result and every displayed object where all of them are made."""
        super().init_display_formatter()
        unbounded = self.display_formatter.format

        def bounded(obj: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
            data, metadata = unbounded(obj, include=include, exclude=exclude)
            data, was_cut = cut_mime(data, LIMITS.text_chars // 2, LIMITS.rich_chars)
            _Cut.happened = _Cut.happened or was_cut
            return data, metadata

        self.display_formatter.format = bounded

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        limit = LIMITS.text_chars // 4
        super()._showtraceback(etype, cut(str(evalue), limit), cut_traceback(stb, limit))


class BoundedKernel(IPythonKernel):  # type: ignore[misc]
    """The IPython kernel with a bounded reply: it repeats the error's text in full."""

    shell_class = BoundedShell

    async def do_execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell, flush what its bounded streams kept, bound the reply."""
        _Cut.happened = False
        try:
            reply: dict[str, Any] = await super().do_execute(*args, **kwargs)
        finally:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, BoundedOutStream):
                    stream.end_cell()
        if "evalue" in reply:
            reply["evalue"] = cut(reply["evalue"], LIMITS.text_chars // 4)
        reply["truncated"] = _Cut.happened
        return reply


def main() -> None:
    """Limit this process and run the kernel until it is told to shut down or killed."""
    connection_file, limits_json, server_pid = sys.argv[1:]
    die_with_parent(int(server_pid))
    become_subreaper()
    KernelLimits(**json.loads(limits_json)).apply()
    os.umask(0o027)

    app = IPKernelApp.instance(
        connection_file=connection_file,
        kernel_class=BoundedKernel,
        outstream_class=f"{__name__}.BoundedOutStream",
        log_level=40,
        # Nothing of a cell is kept on disk, and user start-up files are nobody's here.
        exec_files=[],
        ignore_cwd=True,
    )
    # The reader is a model: colour codes are noise to it.
    app.config.InteractiveShell.colors = "nocolor"
    app.config.HistoryManager.enabled = False
    app.config.HistoryManager.hist_file = ":memory:"
    app.config.BaseIPythonApplication.auto_create = False
    app.initialize([])
    _stop_echo()
    _warm_up()
    app.start()


def _stop_echo() -> None:
    """Stop ipykernel from copying what child processes print into the log that the server opened for start errors."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        echo = getattr(stream, "_original_stdstream_copy", None)
        if echo is not None:
            os.dup2(null, echo)
    os.close(null)


def _warm_up() -> None:
    """Import what model-written code imports. After the shell exists, for matplotlib hooks its figures into it."""
    import cv2  # noqa: PLC0415
    import matplotlib.pyplot  # noqa: PLC0415
    import numpy  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    del cv2, matplotlib, numpy, PIL
    gc.collect()
