"""Sessions in a tenant's sandbox: their names, and the deletion of those that are left over."""

from __future__ import annotations

import secrets
import time

from s1vl_orchestrator.sandbox import SandboxClient

SESSION_PREFIX = "s1vl-"


def new_session_id(seconds: float) -> str:
    """A random session id that also says when its job is surely over, so that any instance may sweep it then."""
    return f"{SESSION_PREFIX}{int(time.time() + seconds):x}-{secrets.token_urlsafe(16)}"


def is_orphan(session_id: str, now: float) -> bool:
    """Whether a session is one of ours and its job is surely over (its instance died)."""
    if not session_id.startswith(SESSION_PREFIX):
        return False
    try:
        return int(session_id.removeprefix(SESSION_PREFIX).split("-")[0], 16) < now
    except ValueError:
        return False


class Sweeper:
    """Deletes sessions whose deletion failed, again and again until they are gone."""

    def __init__(self) -> None:
        self._left: set[str] = set()

    def add(self, session_id: str) -> None:
        """Remember a session that could not be deleted."""
        self._left.add(session_id)

    def discard(self, session_id: str) -> None:
        """Forget a session that is gone."""
        self._left.discard(session_id)

    async def sweep(self, client: SandboxClient, *, orphans: bool = False) -> int:
        """Try again; returns how many are left. With `orphans`, those of instances that died as well."""
        doomed = set(self._left)
        if orphans:
            doomed |= {name for name in await client.session_ids() if is_orphan(name, time.time())}
        for session_id in doomed:
            await client.delete(session_id)
            self._left.discard(session_id)
        return len(self._left)
