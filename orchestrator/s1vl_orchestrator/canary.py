"""The path canary: proof that the tenant's sandbox sees the same files as we do, by way of a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from s1vl_orchestrator import files
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.paths import CANARY, Relative, TenantPaths
from s1vl_orchestrator.sandbox import (
    Cell,
    Grants,
    SandboxBusyError,
    SandboxClient,
    SandboxDrainingError,
    SandboxRefusedError,
    SandboxUnavailableError,
)
from s1vl_orchestrator.sandbox_sessions import Sweeper, new_session_id

log = logging.getLogger(__name__)

CELL_SECONDS = 20
VISIBLE_SECONDS = 3.0
"""How long we wait for the kernel's file to appear here: network file systems are not instant."""
STALE_SECONDS = 600
NONCE, DIGEST = "nonce", "digest"


class PathReason(StrEnum):
    """Why paths are (not) consistent; read by the operator."""

    CONSISTENT = "PathsConsistent"
    MISMATCH = "CanaryMismatch"
    WRITE_FAILED = "CanaryWriteFailed"
    UNREACHABLE = "SandboxUnreachable"
    NOT_CHECKED = "NotChecked"


@dataclass(frozen=True)
class PathStatus:
    """The last canary's result. `consistent` is None when nothing is known."""

    consistent: bool | None
    reason: PathReason
    message: str
    checked_at: datetime | None


NOT_CHECKED = PathStatus(None, PathReason.NOT_CHECKED, "The paths have not been checked yet.", None)


def unreachable(tenant: str, sandbox: SandboxClient, why: SandboxUnavailableError | str) -> PathStatus:
    """The status of a sandbox that cannot be asked."""
    message = f"Tenant {tenant}: the sandbox at {sandbox.url} does not answer: {why}."
    return PathStatus(None, PathReason.UNREACHABLE, message, datetime.now(UTC))


def combined(tenant: str, pods: Sequence[PathStatus]) -> PathStatus:
    """The status of a tenant from those of its pods: wrong if one is, else right if one is."""
    for consistent in (False, True):
        for status in pods:
            if status.consistent is consistent:
                return status
    if not pods:
        return PathStatus(None, PathReason.UNREACHABLE, f"Tenant {tenant}: the sandbox has no pod.", None)
    return max(pods, key=lambda status: status.reason is PathReason.UNREACHABLE)


async def check_paths(
    tenant: str, paths: TenantPaths, sandbox: SandboxClient, sweeper: Sweeper, workers: Workers
) -> PathStatus:
    """Send one canary: write a nonce, have the kernel digest it and write the digest beside it, read that.

    It has a folder of its own, the only one that its session may reach. The folder is removed again, and the session
    is deleted.

    Raises:
        SandboxBusyError, SandboxDrainingError: If the sandbox has no session for it: nothing is known then.
    """
    folder = CANARY / secrets.token_hex(8)
    nonce = secrets.token_hex(32).encode()
    views = f"{paths.client} (client), {paths.folder} (orchestrator) and {paths.sandbox} (sandbox)"

    def status(consistent: bool | None, reason: PathReason, message: str) -> PathStatus:
        return PathStatus(consistent, reason, f"Tenant {tenant}: {message}", datetime.now(UTC))

    try:
        await workers.run(_write, paths, folder, nonce)
        cell = await _ask_kernel(sandbox, sweeper, paths.to_sandbox(folder))
        if cell.state_lost or cell.status == "timeout":
            return unreachable(tenant, sandbox, f"the kernel said {_said(cell)}")
        problem = f"the kernel said {_said(cell)}" if cell.status != "ok" else ""
        digest = await _read_digest(workers, paths, folder / DIGEST) if not problem else None
    except (SandboxBusyError, SandboxDrainingError):
        raise
    except SandboxRefusedError as error:
        digest, problem = None, f"the sandbox said {error}"
    except SandboxUnavailableError as error:
        return unreachable(tenant, sandbox, error)
    except OSError as error:
        return status(False, PathReason.WRITE_FAILED, f"cannot write to {paths.folder}: {error.strerror or error}.")
    finally:
        await asyncio.shield(workers.run(_remove, paths, folder))
    if digest is None:
        problem = problem or "what the kernel wrote beside the canary does not arrive"
    elif not hmac.compare_digest(digest, hashlib.sha256(nonce).hexdigest().encode()):
        problem = "the kernel read another file"
    if problem:
        return status(False, PathReason.MISMATCH, f"{views} are not the same folder: {problem}.")
    return status(True, PathReason.CONSISTENT, f"{views} are the same folder.")


async def _ask_kernel(sandbox: SandboxClient, sweeper: Sweeper, folder: str) -> Cell:
    session_id = new_session_id(4 * CELL_SECONDS)
    grants = Grants(folder, (folder,))
    code = f"""
import hashlib
with open({f"{folder}/{NONCE}"!r}, "rb") as _file:
    _digest = hashlib.sha256(_file.read()).hexdigest()
with open({f"{folder}/{DIGEST}"!r}, "w") as _file:
    _file.write(_digest)
"""
    sweeper.add(session_id)
    try:
        await sandbox.create(session_id, grants)
        return await sandbox.execute(session_id, code, CELL_SECONDS, grants)
    finally:
        # What cannot be deleted stays with the sweeper.
        with contextlib.suppress(SandboxUnavailableError):
            await asyncio.shield(_delete(sandbox, sweeper, session_id))


async def _delete(sandbox: SandboxClient, sweeper: Sweeper, session_id: str) -> None:
    await sandbox.delete(session_id)
    sweeper.discard(session_id)


async def _read_digest(workers: Workers, paths: TenantPaths, file: Relative) -> bytes | None:
    give_up = time.monotonic() + VISIBLE_SECONDS
    while True:
        try:
            return await workers.run(files.read, paths.folder, file, 1024)
        except files.NotOursError:
            if time.monotonic() >= give_up:
                return None
        except files.FileTooLargeError:
            return None
        await asyncio.sleep(0.1)


def _write(paths: TenantPaths, folder: Relative, nonce: bytes) -> None:
    files.make_directory(paths.folder, folder)
    _remove_stale(paths)
    files.write(paths.folder, folder / NONCE, nonce)


def _remove_stale(paths: TenantPaths) -> None:
    """Remove the canaries of instances that were killed, and of sandboxes with the wrong volume."""
    with os.scandir(paths.folder / CANARY) as entries:
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    for entry in folders:
        with contextlib.suppress(FileNotFoundError):  # Another instance was quicker.
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                _remove(paths, CANARY / entry.name)


def _remove(paths: TenantPaths, folder: Relative) -> None:
    try:
        files.remove_tree(paths.folder, folder)
    except OSError as error:
        log.warning("cannot remove the canary %s: %s", folder, error)


def _said(cell: Cell) -> str:
    errors = [f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs if o.get("output_type") == "error"]
    return (errors[0] if errors else cell.status)[:300]
