"""``s1vl-sandbox serve``: the server as a program."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Iterator

import uvicorn
from pydantic import ValidationError

from s1vl_sandbox.app import create_app
from s1vl_sandbox.isolation import refuse_without
from s1vl_sandbox.logs import configure_logging
from s1vl_sandbox.processes import become_subreaper, hide_from_peers
from s1vl_sandbox.server import Server
from s1vl_sandbox.settings import Settings

_log = logging.getLogger(__name__)

# Seconds that requests get to end before the server does, and running cells with them.
_SHUTDOWN_SECONDS = 10


def main() -> int:
    """Serve until SIGINT, or until the sessions that were open at SIGTERM are closed.

    Returns:
        Exit code: 2 for a wrong setting.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"s1vl-sandbox: S1VL_SANDBOX_{name}: {problem['msg']}", file=sys.stderr)
        return 2
    configure_logging(settings.log_format)
    refuse_without(settings.require_isolation)
    become_subreaper()
    hide_from_peers()
    program = Program(Server(settings, owns_children=True))
    gc.freeze()
    gc.enable()
    program.run()
    return 0


class Program(uvicorn.Server):
    """uvicorn around a sandbox's server. The first SIGTERM drains it; another one ends it with its running cells."""

    def __init__(self, sandbox: Server) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(sandbox),
                host=sandbox.settings.host,
                port=sandbox.settings.port,
                log_config=None,
                # The query of a request may hold the API key.
                access_log=False,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self._sandbox = sandbox

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals in the event loop, and end with 0: uvicorn raises them anew at its end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second: whether to end."""
        return await super().on_tick(counter) or self._sandbox.drained

    def _terminate(self) -> None:
        if self._sandbox.draining or self.should_exit:
            self._stop()
            return
        _log.info("draining", extra={"sessions": len(self._sandbox.sessions)})
        self._sandbox.drain()

    def _stop(self) -> None:
        if self._sandbox.draining:
            self.config.timeout_graceful_shutdown = 0
        self.force_exit = self.should_exit
        self.should_exit = True
