"""A Jupyter service as one builds it from `jupyter_client` alone: every session starts a kernel from nothing.

It stands in for the stock AIO image, which cannot be run here, and speaks as much of its API as the benches need.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager, start_new_async_kernel

from bench.peers import served

START_SECONDS = 120


class _Stock:
    def __init__(self) -> None:
        self._kernels: dict[str, tuple[AsyncKernelManager, AsyncKernelClient]] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/jupyter/sessions/create", self._create)
        app.router.add_post("/v1/jupyter/execute", self._execute)
        app.router.add_delete("/v1/jupyter/sessions/{session}", self._delete)
        return app

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._kernels[body["session_id"]] = await start_new_async_kernel(
            kernel_name="python3", startup_timeout=START_SECONDS, cwd=body["cwd"], stderr=subprocess.DEVNULL
        )
        return _answer({"session_id": body["session_id"]})

    async def _execute(self, request: web.Request) -> web.Response:
        body = await request.json()
        _, client = self._kernels[body["session_id"]]
        outputs: list[dict[str, Any]] = []

        def heard(message: dict[str, Any]) -> None:
            kind = message["msg_type"]
            if kind in ("stream", "error", "display_data", "execute_result"):
                outputs.append({"output_type": kind, **message["content"]})

        reply = await client.execute_interactive(body["code"], timeout=body["timeout"], output_hook=heard)
        content = reply["content"]
        return _answer({"status": content["status"], "outputs": outputs, "execution_count": content["execution_count"]})

    async def _delete(self, request: web.Request) -> web.Response:
        manager, client = self._kernels.pop(request.match_info["session"])
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        return _answer(None)

    async def close(self) -> None:
        for manager, client in self._kernels.values():
            client.stop_channels()
            await manager.shutdown_kernel(now=True)


def _answer(data: Any) -> web.Response:
    body = json.dumps({"success": True, "message": "ok", "data": data, "hint": None}, default=str)
    return web.Response(text=body, content_type="application/json")


@contextlib.asynccontextmanager
async def stock_sandbox() -> AsyncIterator[str]:
    """Serve it; yields its URL. All kernels are gone afterwards."""
    stock = _Stock()
    try:
        async with served(stock.app()) as url:
            yield url
    finally:
        await stock.close()
