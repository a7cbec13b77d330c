"""Names, labels and selectors of everything that belongs to an S1VLDeployment.

Two deployments of a namespace never share a child's name: `api.rules` refuses a deployment's name that could make its
child another's (`CHILD_WORDS`), and a name that must be cut ends in a hash of the whole.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from s1vl_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, S1VLDeployment

Component = Literal["engine", "sandbox", "orchestrator", "storage"]

MANAGED_BY = "s1vl-operator"
PART_OF = "s1vl"
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
TENANT_LABEL = f"{GROUP}/tenant"
COMPONENT_LABEL = "app.kubernetes.io/component"

CONTROLLER_MAX = 52
"""The label with a revision is its controller's name, a dash and ten characters, and must fit into 63."""


def bounded(name: str, limit: int = CONTROLLER_MAX) -> str:
    """The name itself or, beyond `limit` characters, its beginning and 8 hex digits of the whole name's hash."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def engine(deployment: S1VLDeployment) -> str:
    """The engine's StatefulSet, client Service, PodDisruptionBudget and NetworkPolicy."""
    return f"{deployment.name}-engine"


def engine_pods(deployment: S1VLDeployment) -> str:
    """The engine's headless Service."""
    return f"{deployment.name}-engine-pods"


def orchestrator(deployment: S1VLDeployment) -> str:
    """The orchestrator's Deployment, Service, ConfigMap, Secret, ServiceAccount, Role, RoleBinding and so on."""
    return f"{deployment.name}-orchestrator"


def sandbox(deployment: S1VLDeployment, tenant: str) -> str:
    """A tenant's sandbox Deployment, headless Service, PodDisruptionBudget and Secret."""
    return bounded(f"{deployment.name}-sandbox-{tenant}")


def sandboxes(deployment: S1VLDeployment) -> str:
    """What all the sandboxes share: NetworkPolicy."""
    return f"{deployment.name}-sandbox"


def tenant_key(deployment: S1VLDeployment, tenant: str) -> str:
    """The Secret with a tenant's API key that the operator creates when the tenant brings none."""
    return bounded(f"{deployment.name}-tenant-{tenant}", 253)


def lease(deployment: S1VLDeployment, tenant: str) -> str:
    """The Lease by which a tenant's requests keep its sandbox awake."""
    return bounded(f"{deployment.name}-tenant-{tenant}", 253)


def images_claim(deployment: S1VLDeployment) -> str:
    """The claim of the image volume."""
    return f"{deployment.name}-images"


def cache_claim(deployment: S1VLDeployment) -> str:
    """The claim of the model cache."""
    return f"{deployment.name}-model-cache"


def default_deny(deployment: S1VLDeployment) -> str:
    """The NetworkPolicy that closes what no other opens."""
    return f"{deployment.name}-default-deny"


def selector(
    deployment: S1VLDeployment, component: Component | None = None, tenant: str | None = None
) -> dict[str, str]:
    """Labels that pick the deployment's pods, of one component and tenant or of all; never changed once released."""
    labels = {"app.kubernetes.io/part-of": PART_OF, DEPLOYMENT_LABEL: deployment.name}
    if component:
        labels[COMPONENT_LABEL] = component
    if tenant:
        labels[TENANT_LABEL] = tenant
    return labels


def labels(deployment: S1VLDeployment, component: Component | None = None, tenant: str | None = None) -> dict[str, str]:
    """All labels of an object of the deployment; no component for what concerns them all."""
    return {
        "app.kubernetes.io/name": "s1vl",
        "app.kubernetes.io/instance": deployment.name,
        "app.kubernetes.io/managed-by": MANAGED_BY,
        **selector(deployment, component, tenant),
    }


def selector_text(deployment: S1VLDeployment, component: Component | None = None, tenant: str | None = None) -> str:
    """The selector in the form that the API takes as `labelSelector` and that /scale reports."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(deployment, component, tenant).items()))


def host(service: str, namespace: str) -> str:
    """A Service's name in the cluster's DNS, without the cluster's own domain."""
    return f"{service}.{namespace}.svc"


def metadata(
    deployment: S1VLDeployment, name: str, component: Component | None = None, tenant: str | None = None
) -> dict[str, Any]:
    """Metadata of an object that goes when the deployment goes."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": deployment.name,
        "uid": deployment.metadata.uid,
        "controller": True,
    }
    return {
        "name": name,
        "namespace": deployment.namespace,
        "labels": labels(deployment, component, tenant),
        "ownerReferences": [owner],
    }
