"""The kinds of objects that the operator handles, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s1vl_operator.api.v1alpha1 import API_VERSION, KIND, PLURAL

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of namespaced object.

    Attributes:
        api_version: e.g. `v1` or `apps/v1`.
        kind: e.g. `StatefulSet`.
        plural: its word in URLs, e.g. `statefulsets`.
    """

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """The API group; "" for the core one."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL's path of the collection in a namespace ("": in all), of one object, or of its subresource."""
        root = "/apis" if "/" in self.api_version else "/api"
        where = ["namespaces", namespace] if namespace else []
        parts = [f"{root}/{self.api_version}", *where, self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


S1VL_DEPLOYMENT = Kind(API_VERSION, KIND, PLURAL)
POD = Kind("v1", "Pod", "pods")
SECRET = Kind("v1", "Secret", "secrets")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")

HORIZONTAL_POD_AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
"""KEDA's; only some clusters have it, so it is listed where it is served, and not watched."""

AUTOSCALERS = (HORIZONTAL_POD_AUTOSCALER, SCALED_OBJECT)

CHILDREN = (
    CLAIM,
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    CONFIG_MAP,
    Kind("v1", "Service", "services"),
    LEASE,
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    HORIZONTAL_POD_AUTOSCALER,
    Kind("apps/v1", "StatefulSet", "statefulsets"),
    Kind("apps/v1", "Deployment", "deployments"),
)
"""What the desired state is made of; listed in every reconcile, and watched. Secrets are neither: listing them is a
right that the operator does not have."""

_BY_NAME = {k.kind: k for k in (*CHILDREN, SCALED_OBJECT, S1VL_DEPLOYMENT, POD, SECRET, EVENT, ENDPOINT_SLICE)}


def kind_of(manifest: Manifest) -> Kind:
    """The kind that a manifest is of.

    Raises:
        LookupError: a kind that the operator has no business with.
    """
    kind = _BY_NAME.get(manifest["kind"])
    if kind is None or kind.api_version != manifest["apiVersion"]:
        raise LookupError(f"no rights are held on {manifest['apiVersion']} {manifest['kind']}")
    return kind
