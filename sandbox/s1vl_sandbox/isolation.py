"""Refusing to start on a node that cannot confine kernels, when that was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from s1vl_sandbox.containment import Isolation, Protection, probe

# Where Kubernetes looks for the reason of a container's end, unless the pod says otherwise.
_TERMINATION_LOG = Path("/dev/termination-log")


def refuse_without(required: str) -> Isolation:
    """Probe the node; with ``required`` "strict", end this program (78, EX_CONFIG) unless it confines kernels."""
    isolation = probe()
    # A server of its own is the pod's business, not the node's.
    missing = sorted(isolation.missing(separate=True) - {Protection.SEPARATE_SERVER})
    if required == "strict" and missing:
        reason = (
            f"s1vl-sandbox: isolation is required, but this node lacks {', '.join(missing)} "
            f"(Landlock ABI {isolation.landlock_abi})"
        )
        print(reason, file=sys.stderr)
        if _TERMINATION_LOG.exists():
            with contextlib.suppress(OSError):
                _TERMINATION_LOG.write_text(reason + "\n")
        sys.exit(os.EX_CONFIG)
    return isolation
