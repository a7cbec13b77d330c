"""The operator's surroundings: its images, the API server's addresses, and what else the cluster serves."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from typing import Any

from s1vl_operator.cluster.kinds import ENDPOINT_SLICE, SCALED_OBJECT
from s1vl_operator.cluster.port import ApiError, Cluster, Unreachable
from s1vl_operator.desired import Context
from s1vl_operator.settings import Settings

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 30.0
"""API servers come and go when a control plane is upgraded, and KEDA with its administrator."""
GONE_SECONDS = 600.0
"""An address that is no longer listed is kept for so long. API servers are restarted one after another, and a policy
that closes for each in turn would cut orchestrators off from the one that has just come back."""


class Surroundings:
    """The Context, kept up to date by `refresh`.

    Args:
        settings: what the operator was told.
        cluster: where the API server's addresses are.
        environment: has those of the Service `kubernetes` in a pod.
        time: a monotonic clock in seconds.
    """

    def __init__(
        self, settings: Settings, cluster: Cluster, environment: Mapping[str, str], time: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._environment = environment
        self._time = time
        self._listed: dict[tuple[str, int], float] = {}
        """When each address was listed last."""
        self._context: Context | None = None

    def context(self) -> Context:
        """The surroundings as they were last seen; `refresh` first."""
        if self._context is None:
            raise RuntimeError("the surroundings have not been looked at yet")
        return self._context

    async def refresh(self) -> bool:
        """Look again; returns whether anything changed. After a failure what was known stays known.

        Raises:
            ApiError: the very first look failed.
            Unreachable: likewise.
        """
        try:
            labels = "kubernetes.io/service-name=kubernetes"
            slices = await self._cluster.list(ENDPOINT_SLICE, "default", labels=labels)
            if slices and not any(one.get("endpoints") for one in slices):
                # One that stops takes itself off the list, and one that has just started is not on it yet.
                raise Unreachable("the API server does not list its own address")  # noqa: TRY301 (as good as no answer)
            keda = await self._cluster.served(SCALED_OBJECT.api_version, SCALED_OBJECT.plural)
        except (ApiError, Unreachable) as error:
            if self._context is None:
                raise
            logger.warning("Cannot look around in the cluster: %s", error)
            return False
        now = self._time()
        self._listed |= dict.fromkeys(api_server_cidrs(slices, self._environment), now)
        self._listed = {address: at for address, at in self._listed.items() if now - at < GONE_SECONDS}
        fresh = Context(
            control_image=self._settings.image,
            sandbox_image=self._settings.sandbox_image,
            engine_image=self._settings.engine_image,
            image_pull_policy=self._settings.image_pull_policy,
            operator_namespace=self._settings.namespace,
            api_server_cidrs=tuple(sorted(self._listed)),
            keda=keda,
        )
        changed = fresh != self._context
        self._context = fresh
        return changed


def api_server_cidrs(slices: list[dict[str, Any]], environment: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """(CIDR, port) of every address of the API server, sorted.

    The Service's own address is among them: whether a policy is applied before or after it is translated differs
    between networks.

    Args:
        slices: the EndpointSlices of the Service `kubernetes` in `default`.
        environment: has KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in a pod.
    """
    found = {
        (address, int(port["port"]))
        for one in slices
        for endpoint in one.get("endpoints") or []
        for address in endpoint.get("addresses") or []
        for port in one.get("ports") or []
        if port.get("port")
    }
    if host := environment.get("KUBERNETES_SERVICE_HOST"):
        found.add((host, int(environment.get("KUBERNETES_SERVICE_PORT") or 443)))
    return tuple(sorted((str(ipaddress.ip_network(address)), port) for address, port in found))
