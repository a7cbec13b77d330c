"""An ordinary IPython kernel whose output is bounded and whose start is in two parts.

The first part is done ahead of need and makes neither a thread nor a socket, so that the process can still be
confined; the second waits for the session that the kernel is for.
"""

from __future__ import annotations

import codecs
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import zmq
from ipykernel import iostream
from ipykernel.compiler import XCachingCompiler
from ipykernel.control import ControlThread
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.shellchannel import ShellChannelThread
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.application import BaseIPythonApplication

from s1vl_sandbox.outputs import HeadTail, OutputLimits, cut, cut_mime, cut_traceback

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
        if not self._is_master_process():
            # A forked child has no thread that sends; the kernel reads its own descriptors 1 and 2 and does.
            _write_all(self._original_stdstream_fd, string.encode(errors="replace"))
            return len(string)
        shown = self._bound.write(string)
        if len(shown) < len(string) and self._bound.missing:
            _Cut.happened = True
        if shown:
            super().write(shown)
        return len(string)

    def flush(self) -> None:
        """Send what was written; a forked child has nothing, and no thread to send it with."""
        if self._is_master_process():
            super().flush()

    def end_cell(self) -> None:
        """Write the remembered end and start counting anew."""
        rest = self._bound.finish()
        self._bound = HeadTail(LIMITS.text_chars // 2)
        if rest:
            super().write(rest)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


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

    def system_piped(self, cmd: str) -> None:
        """Run what follows a `!`. IPython does so on a terminal of its own, which a confined kernel cannot have."""
        command = self.var_expand(cmd, depth=1)
        with subprocess.Popen(  # noqa: S602  (a shell is what `!` means)
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert isinstance(process.stdout, io.BufferedReader)  # noqa: S101  (we asked for a pipe)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            while data := process.stdout.read1(iostream.PIPE_BUFFER_SIZE):
                sys.stdout.write(decoder.decode(data))
        sys.stdout.write(decoder.decode(b"", final=True))
        self.user_ns["_exit_code"] = process.returncode

    system = system_piped

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


# Numbers at the end of the sockets' paths.
_SHELL, _IOPUB, _STDIN, _CONTROL = 1, 2, 3, 4


class KernelApp(IPKernelApp):  # type: ignore[misc]
    """A kernel that is started in two parts, listens on Unix sockets in its folder and connects nowhere."""

    @classmethod
    def prepare(cls, folder: Path) -> KernelApp:
        """Do all that needs neither a thread nor a socket.

        Args:
            folder: The kernel's own folder, short enough for socket paths of 107 bytes.
        """
        app: KernelApp = cls.instance(
            transport="ipc",
            ip=str(folder / "s"),
            shell_port=_SHELL,
            stdin_port=_STDIN,
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
        BaseIPythonApplication.initialize(app, [])  # type: ignore[no-untyped-call]
        app.init_pdb()
        # The kernel, which comes later, takes the shell that is there.
        app.shell = BoundedShell.instance(
            parent=app, profile_dir=app.profile_dir, user_ns={}, compiler_class=XCachingCompiler
        )
        backend = sys.modules.get("matplotlib_inline.backend_inline")
        if backend is not None:
            # One that is imported only by a cell does this itself.
            backend.configure_inline_support(app.shell, os.environ["MPLBACKEND"])
        return app

    def listen(self, key: bytes) -> None:
        """Do the rest: sockets, threads, the kernel. ``key`` signs the messages (HMAC-SHA-256)."""
        self.session.key = key
        self.init_sockets()
        self.init_io()
        self.init_signal()
        self.init_kernel()
        self.kernel.shell.kernel = self.kernel
        self.init_path()
        self.init_shell()
        self.init_gui_pylab()
        self.init_extensions()
        self.init_code()
        sys.stdout.flush()
        sys.stderr.flush()

    def init_control(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Leave out the debugger's sockets, one of which would connect."""
        self.control_socket = context.socket(zmq.ROUTER)
        self.control_socket.linger = 1000
        self.control_port = self._bind_socket(self.control_socket, _CONTROL)
        self.debugpy_socket = context.socket(zmq.STREAM)
        self.control_thread = ControlThread(daemon=True)
        self.shell_channel_thread = ShellChannelThread(context, daemon=True)

    def init_iopub(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Leave out the TCP socket on which ipykernel hears forked children: they write to descriptors instead."""
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, _IOPUB)
        self.configure_tornado_logger()
        self.iopub_thread = iostream.IOPubThread(self.iopub_socket, pipe=False, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket
