"""`s1vl-orchestrator`: settings, two servers in one event loop, and a shutdown that finishes what runs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import logging.config
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn

from s1vl_orchestrator.app import create_app, create_management_app
from s1vl_orchestrator.service import STOP_SECONDS, Service
from s1vl_orchestrator.sources import FileSource, KubernetesSource, Source, SourceError
from s1vl_orchestrator.telemetry import log_config

log = logging.getLogger("s1vl_orchestrator")

LINGER_SECONDS = 5.0
"""How long new requests are still taken after SIGTERM: not every node hears at once that the pod leaves its Service,
and clients that keep their connections hear of it with an answer."""
DRAIN_SLACK_SECONDS = 20.0
CLOSE_SECONDS = 10
"""How long connections may take to close after the last request."""


class _Server(uvicorn.Server):
    """A server that leaves the signals to us: two of them share the loop, and a job must outlive the first SIGTERM."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    options = _parse(arguments)
    logging.config.dictConfig(log_config(options.log_level, options.log_format))
    try:
        source = _source(options)
    except SourceError as error:
        sys.exit(f"s1vl-orchestrator: {error}")
    sys.exit(asyncio.run(serve(source, options.host, options.port, options.management_port)))


async def serve(source: Source, host: str, port: int, management_port: int) -> int:
    """Serve both ports until a signal comes; returns the exit code."""
    service = Service(source)
    await service.start()
    servers = [
        _Server(
            uvicorn.Config(
                app,
                host=host,
                port=number,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        for app, number in ((create_app(service), port), (create_management_app(service), management_port))
    ]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    running = [asyncio.create_task(server.serve()) for server in servers]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = not stop.is_set()  # A server that ends by itself could not bind its port, and has said so.
        if not failed:
            snapshot = service.snapshot
            longest = (snapshot.config.limits.deadline_seconds if snapshot else 0.0) + DRAIN_SLACK_SECONDS
            service.leaving = True
            await asyncio.sleep(LINGER_SECONDS)
            # Connections that no request is running on are closed now, the others with their answer.
            servers[0].config.timeout_graceful_shutdown = math.ceil(longest + STOP_SECONDS) + CLOSE_SECONDS
            servers[0].should_exit = True
            await service.drain(longest)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running, return_exceptions=True)
    finally:
        stopping.cancel()
        await service.close()
    log.info("stopped")
    return 1 if failed else 0


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("second signal: giving up at once")
        os._exit(130)
    stop.set()


def _source(options: argparse.Namespace) -> Source:
    if options.configmap:
        namespace, _, name = options.configmap.partition("/")
        return KubernetesSource(namespace, name)
    return FileSource(Path(options.config), Path(options.secrets_dir))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def setting(name: str, default: str | None = None) -> str | None:
        return os.environ.get(f"S1VL_{name}", default)

    parser = argparse.ArgumentParser(
        prog="s1vl-orchestrator",
        description="Lets S1-VL think with images. Every option may be given as an environment variable S1VL_<OPTION>.",
    )
    parser.add_argument("--config", default=setting("CONFIG"), metavar="FILE", help="configuration file")
    parser.add_argument(
        "--secrets-dir", default=setting("SECRETS_DIR", "secrets"), metavar="DIR", help="DIR/<name>/<key>"
    )
    parser.add_argument(
        "--configmap",
        default=setting("CONFIGMAP"),
        metavar="NAMESPACE/NAME",
        help="read from the Kubernetes API instead",
    )
    parser.add_argument("--host", default=setting("HOST", "0.0.0.0"))  # noqa: S104 - the pod's address is not known before
    parser.add_argument("--port", type=int, default=setting("PORT", "10044"))
    parser.add_argument("--management-port", type=int, default=setting("MANAGEMENT_PORT", "10045"))
    parser.add_argument("--log-level", default=setting("LOG_LEVEL", "info"))
    parser.add_argument("--log-format", choices=("json", "text"), default=setting("LOG_FORMAT", "json"))
    options = parser.parse_args(arguments)
    if bool(options.config) == bool(options.configmap):
        parser.error("exactly one of --config and --configmap is needed")
    if options.configmap and not all(options.configmap.partition("/")):
        parser.error("--configmap must be NAMESPACE/NAME")
    return options


if __name__ == "__main__":
    main()
