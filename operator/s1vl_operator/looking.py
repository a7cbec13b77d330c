"""What is read of one S1VLDeployment at a look, besides the custom resource itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.cluster.kinds import CHILDREN, EVENT, POD, SCALED_OBJECT, Manifest
from s1vl_operator.cluster.port import ApiError, Cluster
from s1vl_operator.desired import names
from s1vl_operator.observe.pods import is_ready

logger = logging.getLogger(__name__)

EVENT_FIELDS = ("type=Warning", "reason=SuccessfulCreate,regarding.kind=StatefulSet")
"""What troubles pods, and that a StatefulSet can make its pods again."""

EVENTS = 500
"""Events of the namespace that are looked through at most, of each kind."""


@dataclass(frozen=True)
class Looker:
    """Looks at the cluster, which is where everything is."""

    cluster: Cluster

    async def __call__(
        self, deployment: S1VLDeployment, *, keda: bool
    ) -> tuple[dict[tuple[str, str], Manifest], list[Manifest]]:
        """The deployment's objects by (kind, name), without Secrets, and its pods.

        Args:
            deployment: the custom resource.
            keda: the cluster has KEDA.
        """
        selector = names.selector_text(deployment)
        lists = await asyncio.gather(
            *(self.cluster.list(kind, deployment.namespace, labels=selector) for kind in CHILDREN),
            self._scaled_objects(deployment.namespace, selector, keda=keda),
            self.cluster.list(POD, deployment.namespace, labels=selector),
        )
        objects = {(one["kind"], one["metadata"]["name"]): one for found in lists[:-1] for one in found}
        return objects, lists[-1]

    async def _scaled_objects(self, namespace: str, selector: str, *, keda: bool) -> list[Manifest]:
        if not keda:
            return []
        try:
            return await self.cluster.list(SCALED_OBJECT, namespace, labels=selector)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            # KEDA was just removed, or our rights are older than its support: nobody's reconciliation may end on that.
            logger.warning("Cannot list KEDA's ScaledObjects in %s: %s", namespace, error)
            return []

    async def events(
        self, namespace: str, objects: Mapping[tuple[str, str], Manifest], pods: Sequence[Manifest]
    ) -> list[Manifest]:
        """The namespace's events that may say why a pod is missing or not ready; none where all are."""
        if not _worth_a_look(objects, pods):
            return []
        try:
            found = await asyncio.gather(
                *(self.cluster.list(EVENT, namespace, fields=fields, limit=EVENTS) for fields in EVENT_FIELDS)
            )
            return [event for listed in found for event in listed]
        except ApiError as error:
            # They only make messages better.
            logger.warning("Cannot list the events of %s: %s", namespace, error)
            return []


def _worth_a_look(objects: Mapping[tuple[str, str], Manifest], pods: Sequence[Manifest]) -> bool:
    """Whether a pod is missing or not ready, so that the events may say why."""
    wanted = sum(
        o["spec"].get("replicas", 1) for (kind, _), o in objects.items() if kind in ("StatefulSet", "Deployment")
    )
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return len(staying) < wanted or not all(is_ready(pod) for pod in staying)
