"""`/sim`: faults to inject and the requests seen. Not part of vLLM."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from hack.engine_sim.faults import Faults
from hack.engine_sim.state import KEPT_REQUESTS, Simulator


def admin_router(sim: Simulator) -> APIRouter:
    """Return the routes under `/sim`."""
    router = APIRouter(prefix="/sim")

    @router.get("/faults")
    async def get_faults() -> Faults:
        return sim.injector.faults

    @router.put("/faults")
    async def put_faults(faults: Faults) -> Faults:
        sim.injector.set(faults)
        sim.engine.wake()
        return faults

    @router.get("/requests")
    async def get_requests(limit: int = KEPT_REQUESTS) -> list[dict[str, Any]]:
        return [seen.json() for seen in list(sim.seen)[-limit:]] if limit > 0 else []

    @router.delete("/requests", status_code=204)
    async def delete_requests() -> None:
        sim.seen.clear()

    @router.post("/reset", status_code=204)
    async def reset() -> None:
        sim.injector.reset()
        sim.seen.clear()
        await sim.rendered(sim.media.clear)
        sim.engine.clear_prefix_cache()
        sim.engine.wake()

    return router
