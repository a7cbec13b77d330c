"""What the operator asks of a cluster; `client.KubernetesCluster` is the real one, tests have one in memory."""

from __future__ import annotations

from typing import Protocol

from s1vl_operator.cluster.kinds import Kind, Manifest

FIELD_MANAGER = "s1vl-operator"
"""Owner of the fields of the children."""
HANDOVER_MANAGER = "s1vl-operator-handover"
"""Owner of a number of pods from when the operator lets go of it until an autoscaler writes another one."""
STATUS_MANAGER = "s1vl-operator-status"
"""Owner of the fields of the custom resource's status."""


class ApiError(Exception):
    """The API server refused a request.

    Attributes:
        status: the HTTP status, e.g. 422.
        reason: the API's reason, e.g. `Invalid`; may be "".
        message: what the API server says, meant for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({status} {reason})" if reason else f"{message} ({status})")
        self.status = status
        self.reason = reason
        self.message = message


class Unreachable(Exception):  # noqa: N818 (a state of the cluster)
    """The API server did not answer in time, or at all."""


class NotLeading(Exception):  # noqa: N818 (a state of this replica)
    """A write was kept back: another replica may lead now."""


class Cluster(Protocol):
    """The operator's use of the API. Manifests are plain dicts, as on the wire.

    Every method raises ApiError for a refusal and Unreachable for silence, but for what its text says.
    """

    async def served(self, api_version: str, plural: str) -> bool:
        """Whether the API server serves a resource, e.g. `apps/v1`, `deployments`."""

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """One object; None when it does not exist."""

    async def list(
        self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "", limit: int = 0
    ) -> list[Manifest]:
        """The objects of a namespace ("": of all) that match a label and a field selector, `limit` of them if not 0."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; a 409 when it exists."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply by FIELD_MANAGER, with force."""

    async def hand_over(self, manifest: Manifest) -> None:
        """Server-side apply by HANDOVER_MANAGER; a 409 when somebody else has just written another value."""

    async def merge(self, manifest: Manifest) -> Manifest:
        """JSON merge patch by FIELD_MANAGER: lists become exactly the manifest's."""

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object; a 409 when its resourceVersion is no longer the manifest's."""

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, *, grace: int | None = None, orphan: bool = False
    ) -> None:
        """Delete the object with that uid, its dependents in the background; nothing when it is gone already.

        `grace` are seconds in place of a pod's own grace period; with `orphan` the dependents stay.
        """

    async def apply_status(self, manifest: Manifest) -> None:
        """Server-side apply of `status` by STATUS_MANAGER.

        A 404 when the object is gone, a 409 when its resourceVersion is no longer the manifest's.
        """
