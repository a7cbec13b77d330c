"""Which renewals of a tenant's Lease are worth a look at its deployment."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from s1vl_operator.api.rules import MIN_IDLE_SECONDS
from s1vl_operator.observe import sandboxes


class Renewals:
    """Remembers when each Lease was renewed last."""

    def __init__(self) -> None:
        self._known: dict[str, datetime] = {}

    def matters(self, event: str | None, uid: str, lease: dict[str, Any]) -> bool:
        """Whether an event about a Lease may change what is wanted.

        A tenant with requests renews every few seconds: no sandbox falls asleep, or is woken, in between.

        Args:
            event: its type, e.g. DELETED; None for what was there before the watch.
            uid: of the Lease.
            lease: as it is now.
        """
        known, renewed = self._known.get(uid), sandboxes.last_activity(lease)
        if event == "DELETED":
            self._known.pop(uid, None)
            return True
        self._known[uid] = renewed
        return known is None or not 0 < (renewed - known).total_seconds() < MIN_IDLE_SECONDS
