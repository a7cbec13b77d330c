"""The process: binding the port, loading slowly, serving, and dying as vLLM dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn

from hack.engine_sim.app import create_app
from hack.engine_sim.faults import Faults
from hack.engine_sim.flags import ConfigError, ServeOptions
from hack.engine_sim.policy.scenario import load_scenarios
from hack.engine_sim.state import Simulator
from hack.engine_sim.versions import Behaviour

STARTUP_VARIABLE = "VLLM_SIM_STARTUP_SECONDS"
TOKEN_DELAY_VARIABLE = "VLLM_SIM_TOKEN_DELAY_MS"
KEEP_ALIVE_SECONDS = 5
_log = logging.getLogger("vllm")


class _QuietPaths(logging.Filter):
    """Keeps some paths out of the access log."""

    def __init__(self, paths: tuple[str, ...]):
        super().__init__()
        self._paths = paths

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and len(record.args) > 2 and record.args[2] in self._paths)


class _Server(uvicorn.Server):
    """uvicorn, but signals are answered by `_drain` instead of closing the port at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def number_from(variable: str) -> float:
    """Return a number of at least 0 from the environment, 0 without one; raises ConfigError for anything else."""
    text = os.environ.get(variable, "") or "0"
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{variable}={text!r} is not a number") from error
    if value < 0:
        raise ConfigError(f"{variable}={text!r} is below 0")
    return value


def serve(options: ServeOptions, behaviour: Behaviour) -> None:
    """Load and serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: for a bad environment variable.
        OSError: when the port is taken.
        ScenarioError: when a scenario file is malformed.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(asctime)s [%(name)s] %(message)s"
    )
    signal.signal(signal.SIGTERM, _die_loading)  # as process 1 of a container the default would be to ignore it
    startup, delay = number_from(STARTUP_VARIABLE), number_from(TOKEN_DELAY_VARIABLE)
    sim = Simulator(options, behaviour, load_scenarios(), Faults(token_delay_ms=delay))
    # Bound but not listening while loading: connections are refused, and a port in use shows at once.
    # The protocol is named because asyncio switches Nagle's algorithm off (40 ms a chunk) only where it is.
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((options.host or "0.0.0.0", options.port))
    address = bound.getsockname()
    _log.info("vLLM API server version %s (simulated engine), model %s", behaviour.version, options.model)
    time.sleep(startup)
    _log.info("Starting vLLM API server on http://%s:%d", address[0], address[1])
    asyncio.run(_serve(sim, bound))


def _die_loading(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


async def _serve(sim: Simulator, bound: socket.socket) -> None:
    options = sim.options
    if options.quiet_paths:
        logging.getLogger("uvicorn.access").addFilter(_QuietPaths(options.quiet_paths))
    config = uvicorn.Config(
        create_app(sim),
        access_log=options.access_log,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        log_config=None,
    )
    server = _Server(config)
    engine = asyncio.create_task(sim.engine.run(), name="engine")
    engine.add_done_callback(lambda task: _on_engine_end(task, server))
    loop, drains = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def on_signal() -> None:
        if drains:
            server.force_exit = True
        drains.add(asyncio.create_task(_drain(sim, server, engine), name="drain"))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await server.serve(sockets=[bound])
    engine.cancel()


def _on_engine_end(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    if not task.cancelled() and task.exception():
        _log.error("the engine's loop died", exc_info=task.exception())
        server.should_exit = server.force_exit = True


async def _drain(sim: Simulator, server: uvicorn.Server, engine: asyncio.Task[None]) -> None:
    """Shut down as vLLM does.

    With a shutdown timeout running requests go on and new ones get a 500 while `/health` stays 200. What is not done
    by then loses its engine: its stream stays open without another byte, and the process until the client leaves.
    """
    sim.engine.refuse_new()
    timeout = sim.options.shutdown_timeout
    if timeout <= 0:
        sim.engine.abort_all()
    else:
        try:
            async with asyncio.timeout(timeout):
                await sim.engine.idle()
        except TimeoutError:
            _log.warning("shutdown timeout of %g s is over with %d requests left", timeout, sim.engine.load)
    engine.cancel()
    server.should_exit = True
