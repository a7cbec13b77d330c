"""Hand-written objects, as the API server shows them."""

from __future__ import annotations

import hashlib
from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment, parse
from s1vl_operator.observe import Report, Snapshot, parse_report

CONFIG_VERSION = hashlib.sha256(b"config").hexdigest()
LABELS = {"app.kubernetes.io/part-of": "s1vl", "s1vl.io/deployment": "demo"}


def deployment(*tenants: str, **spec: Any) -> S1VLDeployment:
    listed = [{"name": tenant} for tenant in tenants or ("chem",)]
    metadata = {"name": "demo", "namespace": "n", "uid": "u", "generation": 4}
    return parse({"metadata": metadata, "spec": {"tenants": listed, **spec}})


def labels(component: str, tenant: str = "") -> dict[str, str]:
    return {**LABELS, "app.kubernetes.io/component": component, **({"s1vl.io/tenant": tenant} if tenant else {})}


def workload(
    kind: str,
    name: str,
    wanted: int = 1,
    ready: int | None = None,
    *,
    updated: int | None = None,
    pods: int | None = None,
    seen: int = 3,
) -> dict[str, Any]:
    status = {
        "observedGeneration": seen,
        "replicas": wanted if pods is None else pods,
        "readyReplicas": wanted if ready is None else ready,
        "updatedReplicas": wanted if updated is None else updated,
    }
    metadata = {"name": name, "namespace": "n", "generation": 3}
    return {"kind": kind, "metadata": metadata, "spec": {"replicas": wanted}, "status": status}


def pod(name: str, component: str, tenant: str = "", *, ready: bool = True, **status: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    own = {"podIP": "10.0.0.9", "conditions": [condition, *status.pop("conditions", [])], **status}
    return {"kind": "Pod", "metadata": {"name": name, "labels": labels(component, tenant)}, "spec": {}, "status": own}


def report(
    *tenants: str,
    pod: str = "demo-orchestrator-x",
    version: str = CONFIG_VERSION,
    engine: bool = True,
    refusal: str = "",
    **different: Any,
) -> Report:
    """An orchestrator that finds everything in order, but for `different`: tenant -> (reason, consistent, message)."""
    listed = []
    for name in tenants or ("chem",):
        reason, consistent, message = different.get(name, ("PathsConsistent", True, ""))
        served = consistent is True and reason == "PathsConsistent"
        own = {True: "Ready", False: "PathsInconsistent", None: "NotChecked"}[consistent]
        paths = {"consistent": consistent, "reason": reason, "message": message, "checkedAt": None}
        listed.append(
            {"name": name, "ready": served, "reason": own, "message": message, "paths": paths, "jobsRunning": 0}
        )
    state = {"ready": engine, "message": "" if engine else "connection refused"}
    problem = {"refused": bool(refusal), "message": refusal}
    return parse_report(pod, {"configVersion": version, **problem, "engine": state, "tenants": listed})


def healthy(*tenants: str, **changes: Any) -> Snapshot:
    """A snapshot of a deployment that is in order; `changes` replace a part, objects and pods are added by name."""
    names = tenants or ("chem",)
    objects = [
        workload("StatefulSet", "demo-engine"),
        workload("Deployment", "demo-orchestrator"),
        *(workload("Deployment", f"demo-sandbox-{tenant}") for tenant in names),
        *changes.pop("objects", []),
    ]
    pods = [
        pod("demo-engine-0", "engine"),
        pod("demo-orchestrator-x", "orchestrator"),
        *(pod(f"demo-sandbox-{tenant}-0", "sandbox", tenant) for tenant in names),
        *changes.pop("pods", []),
    ]
    without = changes.pop("without", ())
    by_name = {one["metadata"]["name"]: one for one in pods if one["metadata"]["name"] not in without}
    return Snapshot(
        **{
            "objects": {(one["kind"], one["metadata"]["name"]): one for one in objects},
            "pods": list(by_name.values()),
            "reports": [report(*names)],
            "config_version": CONFIG_VERSION,
            **changes,
        }
    )
