"""``/v1/sandbox``: this process and what it enforces."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import sys
import time

from fastapi import APIRouter, Request

from s1vl_sandbox.api.common import server_of
from s1vl_sandbox.envelope import Envelope, success

_SHOWN_PACKAGES = ("ipykernel", "numpy", "pillow", "opencv-python-headless", "matplotlib")

router = APIRouter(prefix="/sandbox")


@router.get("")
async def sandbox(request: Request) -> Envelope:
    """This process and what it enforces. AIO's clients read the fields beside the envelope."""
    server = server_of(request)
    home, workspace = str(server.home), server.settings.workspace or None
    version = importlib.metadata.version("s1vl")
    detail = {
        "system": {
            "os": platform.system(),
            "os_version": platform.release(),
            "arch": platform.machine(),
            "user": _user(),
            "home_dir": home,
            "workspace": workspace,
            "timezone": time.tzname[0],
            "occupied_ports": [str(server.settings.port)],
        },
        "runtime": {"python": [{"ver": platform.python_version(), "bin": sys.executable}], "nodejs": []},
        "utils": [],
    }
    data = {
        "boot_id": server.boot_id,
        "version": version,
        "packages": {name: importlib.metadata.version(name) for name in _SHOWN_PACKAGES},
        "limits": server.describe_limits(),
        "isolation": server.isolation(),
    }
    return {**success(data), "home_dir": home, "workspace": workspace, "version": version, "detail": detail}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # The image has no passwd entry for the uid it is run with.
        return str(os.getuid())


@router.get("/packages/python")
def python_packages() -> Envelope:
    """What cells can import: names and versions, by name."""
    found = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    return success([{"name": name, "version": found[name]} for name in sorted(found, key=str.lower)])
