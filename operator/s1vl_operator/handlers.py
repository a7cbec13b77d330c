"""kopf as an informer: every event about a custom resource or one of its objects becomes a key, and nothing else.

Handlers of plain events write nothing: no finalizer, no annotation. What is listed and watched is cut down to our own
objects by the API server itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from s1vl_operator.cluster.kinds import CHILDREN, CONFIG_MAP, LEASE, POD, S1VL_DEPLOYMENT, Kind
from s1vl_operator.desired.names import DEPLOYMENT_LABEL, MANAGED_BY
from s1vl_operator.renewals import Renewals

CHILD_SELECTOR = f"app.kubernetes.io/managed-by={MANAGED_BY},{DEPLOYMENT_LABEL}"

Enqueue = Callable[[str, str, bool], None]
"""Told (namespace, name, urgent) of an S1VLDeployment; urgent when somebody changed what is wanted."""


def registry(enqueue: Enqueue) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own."""
    made = kopf.OperatorRegistry()
    generations: dict[str, int] = {}
    renewals = Renewals()

    def custom_resource(type: str | None, uid: str, namespace: str, name: str, meta: Any, **_: Any) -> None:
        known, generation = generations.get(uid), int(meta.get("generation") or 0)
        if type == "DELETED":
            generations.pop(uid, None)
        else:
            generations[uid] = generation
        enqueue(namespace, name, generation != known)

    def child(namespace: str, labels: Any, **_: Any) -> None:
        enqueue(namespace, labels[DEPLOYMENT_LABEL], False)

    def lease(type: str | None, uid: str, body: Any, namespace: str, labels: Any, **_: Any) -> None:
        if renewals.matters(type, uid, body):
            enqueue(namespace, labels[DEPLOYMENT_LABEL], False)

    kopf.on.event(*_where(S1VL_DEPLOYMENT), registry=made, id="custom-resource")(_quick(custom_resource))
    for kind in (*CHILDREN, POD):
        kopf.on.event(*_where(kind), registry=made, id=f"child-{kind.plural}", labels={DEPLOYMENT_LABEL: kopf.PRESENT})(
            _quick(lease if kind == LEASE else child)
        )
    # The first that gives credentials is used: a pod's service account, or a kubeconfig.
    kopf.on.login(registry=made, id="service-account", errors=kopf.ErrorsMode.PERMANENT)(_service_account)
    return made


def settings() -> kopf.OperatorSettings:
    """What kopf must and must not do."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.peering.standalone = True
    # Otherwise it watches all namespaces and all CRDs of the cluster.
    made.scanning.disabled = True
    made.networking.request_timeout = 60
    # Refusals for longer than this end the process: a restart is seen, a watch that stands still is not.
    made.networking.error_backoffs = (1, 1, 2, 3, 5, 8)
    made.queueing.idle_timeout = 1.0
    # Otherwise it kills the process a while after a watch that failed: here it is only started anew.
    made.process.ultimate_exiting_timeout = None
    for kind in (*CHILDREN, POD):
        # A person's own ConfigMap (`protocolRef`) is no object of ours; it says by this label whose changes it means.
        selector = DEPLOYMENT_LABEL if kind == CONFIG_MAP else CHILD_SELECTOR
        made.watching.label_selectors[_where(kind)] = selector
    return made


def _where(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.api_version.rpartition("/")[2], kind.plural


def _quick(handler: Callable[..., None]) -> Callable[..., Any]:
    """As a coroutine: kopf sends plain functions to a thread pool, which costs more than they do."""

    async def handle(**kwargs: Any) -> None:
        handler(**kwargs)

    return handle


def _service_account(**kwargs: Any) -> Any:
    return kopf.login_with_service_account(**kwargs) or kopf.login_via_client(**kwargs)
