"""AIO Sandbox's HTTP API, as far as a model that thinks with images needs it."""

from __future__ import annotations

from fastapi import APIRouter

from s1vl_sandbox.api import code, files, folders, jupyter, left_out, sandbox

router = APIRouter(prefix="/v1")
for part in (jupyter, code, files, folders, sandbox, left_out):
    # The last one answers everything that the others do not know.
    router.include_router(part.router)
