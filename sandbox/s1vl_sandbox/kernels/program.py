"""``s1vl-sandbox kernels``: the kernel host as a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from s1vl_sandbox.isolation import refuse_without
from s1vl_sandbox.kernels.warm import import_first, import_rest
from s1vl_sandbox.logs import configure_logging
from s1vl_sandbox.processes import become_subreaper, hide_from_peers

_PREFIX = "S1VL_SANDBOX_"


def main(parent: int | None, environ: Mapping[str, str]) -> int:
    """Host kernels until ``parent`` is gone, or until SIGTERM and the end of the server that is connected.

    All but these comes from the server: `S1VL_SANDBOX_STATE_DIR`, `_REQUIRE_ISOLATION`, `_LOG_FORMAT`.

    Returns:
        Exit code: 2 for a wrong setting.
    """
    state_dir = Path(environ.get(f"{_PREFIX}STATE_DIR", ""))
    required = environ.get(f"{_PREFIX}REQUIRE_ISOLATION", "")
    log_format = environ.get(f"{_PREFIX}LOG_FORMAT", "json")
    for name, fine in {
        "STATE_DIR": state_dir.is_absolute() and state_dir.is_dir(),
        "REQUIRE_ISOLATION": required in ("", "strict"),
        "LOG_FORMAT": log_format in ("json", "text"),
    }.items():
        if not fine:
            print(f"s1vl-sandbox: {_PREFIX}{name}: wrong or missing", file=sys.stderr)
            return 2
    configure_logging("text" if log_format == "text" else "json")
    isolation = refuse_without(required)
    become_subreaper()
    os.umask(0o007)
    import_first()
    from s1vl_sandbox.kernels.host import Host  # noqa: PLC0415  (imports what must be loaded by import_first)

    hide_from_peers()
    facts = {"landlock_abi": isolation.landlock_abi, "held": sorted(isolation.held)}
    Host(state_dir, facts, parent, import_rest(state_dir)).run()
    return 0
