"""`s1vl-sandbox` as a program of its own on this machine, for tests and measurements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from hack.ports import free_port


class SandboxProgram:
    """One started program.

    Attributes:
        process: It.
        url: Of its API.
        port: The same as a number.
        log: The file that holds all it writes.
    """

    def __init__(self, folder: Path, command: str = "serve", **settings: Any) -> None:
        """Start it.

        Args:
            folder: For its log, its home, and its state unless `state_dir` is given. Short: the path of a Unix socket
                may have 107 bytes.
            command: "serve" or "kernels".
            settings: `S1VL_SANDBOX_*` in lower case. A free port of 127.0.0.1 by default.
        """
        self.port = int(settings.get("port") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        chosen = {"host": "127.0.0.1", "port": self.port, "state_dir": folder, **settings}
        # Nothing else of this machine's environment: what it needs it must get from its settings.
        env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        env |= {f"S1VL_SANDBOX_{name.upper()}": str(value) for name, value in chosen.items()}
        with self.log.open("ab") as log:
            arguments = [sys.executable, "-m", "s1vl_sandbox", command]
            self.process = subprocess.Popen(arguments, env=env, stdout=log, stderr=log)

    def ready(self) -> bool:
        """Whether it runs code; it may not listen yet.

        Raises:
            RuntimeError: It has ended; with the end of its log.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the sandbox ended with {self.process.returncode}: {self.said()}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=60, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def end(self, number: int = signal.SIGINT, seconds: float = 60) -> int:
        """Send a signal, wait until it is gone, and return its exit status; kill it when it takes longer.

        Not SIGTERM by default, at which it waits for its open sessions.
        """
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
