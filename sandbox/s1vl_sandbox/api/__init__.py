"""AIO Sandbox's HTTP API, as far as a model that thinks with images needs it."""

from __future__ import annotations

from fastapi import APIRouter

from s1vl_sandbox.api import code, files, folders, jupyter, left_out, sandbox

_v1 = APIRouter(prefix="/v1")
for part in (jupyter, code, files, folders, sandbox):
    _v1.include_router(part.router)

router = APIRouter()
router.include_router(_v1)
# The last: it answers everything that the others, and the application before them, do not know.
router.include_router(left_out.router)
