"""Says what became of an S1VLDeployment: in its status, by events, and in the operator's own metrics."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from s1vl_operator import events
from s1vl_operator.cluster.kinds import Manifest
from s1vl_operator.cluster.port import ApiError, Cluster, Unreachable
from s1vl_operator.telemetry import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teller:
    """Tells of one custom resource at a time.

    Attributes:
        cluster: where status and events are written.
        metrics: what is counted.
        instance: the operator's pod, for events.
        now: the wall clock, in UTC.
    """

    cluster: Cluster
    metrics: Metrics
    instance: str
    now: Callable[[], datetime]

    async def __call__(self, cr: Manifest, new: dict[str, Any], done: list[events.Event]) -> None:
        """Write the status if it changed, then say what happened."""
        before = cr.get("status") or {}
        metadata = cr["metadata"]
        self.metrics.observe((metadata["namespace"], metadata["name"]), new["conditions"])
        if new != before:
            # The version keeps what was seen of one spec from being written to another, or to a namesake.
            only = {key: metadata[key] for key in ("name", "namespace", "resourceVersion")}
            await self.cluster.apply_status(
                {"apiVersion": cr["apiVersion"], "kind": cr["kind"], "metadata": only, "status": new}
            )
        for event in [*done, *events.transitions(before.get("conditions") or [], new["conditions"])]:
            await self._post(cr, event)

    async def _post(self, cr: Manifest, event: events.Event) -> None:
        time = self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = f"{cr['metadata']['name']}.{secrets.token_hex(8)}"
        try:
            await self.cluster.create(events.manifest(event, cr, name=name, time=time, instance=self.instance))
        except (ApiError, Unreachable) as error:
            # The status has it all; an event is not worth a second run.
            logger.warning("Cannot post the event %s of %s: %s", event.reason, cr["metadata"]["name"], error)
