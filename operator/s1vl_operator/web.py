"""/healthz, /readyz and /metrics of the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from s1vl_operator.telemetry import Metrics

Check = Callable[[], str]
"""What is wrong; "" when nothing is."""


class WebServer:
    """Serves until `close`.

    Args:
        metrics: shown at /metrics.
        health: what a restart would mend.
        readiness: what keeps it from working.
    """

    def __init__(self, metrics: Metrics, health: Check, readiness: Check) -> None:
        app = web.Application()

        async def show(_: web.Request) -> web.Response:
            headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return web.Response(body=metrics.render(), headers=headers)

        app.router.add_get("/healthz", _answer(health))
        app.router.add_get("/readyz", _answer(readiness))
        app.router.add_get("/metrics", show)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> int:
        """Listen on all addresses; returns the port, which is chosen when `port` is 0."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, None, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(status=500 if wrong else 200, text=f"{wrong or 'ok'}\n")

    return handle
