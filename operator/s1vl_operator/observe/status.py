"""The status of an S1VLDeployment, made anew every time from one snapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from s1vl_operator.api.conditions import Condition, ConditionType, set_conditions
from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import InvalidSpec, S1VLDeployment
from s1vl_operator.desired import names, service_url
from s1vl_operator.observe import checks, tenants
from s1vl_operator.observe.snapshot import Snapshot, Workload
from s1vl_operator.observe.verdicts import Verdict


def status(deployment: S1VLDeployment, snapshot: Snapshot, now: str) -> dict[str, Any]:
    """The whole status to write.

    Args:
        deployment: the custom resource; its `status` gives the times of conditions that have not changed.
        snapshot: one look at the cluster.
        now: RFC 3339 time in UTC.
    """
    found = tenants.tenants(snapshot, deployment, datetime.fromisoformat(now))
    parts: dict[ConditionType, Verdict] = {
        ConditionType.ENGINE_READY: checks.engine(snapshot, deployment),
        ConditionType.ORCHESTRATOR_READY: checks.orchestrator(snapshot, deployment),
        ConditionType.SANDBOXES_READY: tenants.sandboxes(found),
        ConditionType.PATHS_CONSISTENT: tenants.paths(found),
    }
    progressing = checks.progressing(snapshot, deployment)
    verdicts = {
        ConditionType.READY: checks.ready(snapshot, parts, found),
        **parts,
        ConditionType.PROGRESSING: progressing,
        **checks.kstatus(progressing),
    }
    engine = Workload.of(snapshot.objects.get(("StatefulSet", names.engine(deployment))))
    url = service_url(deployment)
    served: list[dict[str, Any]] = []
    for tenant in found:
        verdict = tenant.verdict
        served.append(
            {
                "name": tenant.name,
                "ready": verdict.status == "True",
                "reason": verdict.reason.value,
                "message": verdict.told,
                "url": url,
            }
        )
    return {
        "observedGeneration": deployment.metadata.generation,
        "replicas": engine.pods,
        "selector": names.selector_text(deployment, "engine"),
        "engine": f"{engine.ready}/{deployment.spec.engine.replicas}",
        "tenantsReady": f"{sum(tenant['ready'] for tenant in served)}/{len(served)}",
        "url": url,
        "conditions": _conditions(deployment.status, verdicts, deployment.metadata.generation, now),
        "tenants": served,
    }


def invalid_status(cr: dict[str, Any], problem: InvalidSpec, now: str) -> dict[str, Any]:
    """The status of a custom resource that cannot be understood; what ran before goes on running, unobserved.

    Args:
        cr: the custom resource as it is.
        problem: its first mistake.
        now: RFC 3339 time in UTC.
    """
    before = cr.get("status") or {}
    generation = cr["metadata"].get("generation", 0)
    unknown = Verdict("Unknown", Reason.NOT_CHECKED, "not looked at while the spec is invalid")
    invalid = Verdict("False", Reason.INVALID_SPEC, str(problem))
    verdicts = {
        ConditionType.READY: invalid,
        **dict.fromkeys(checks.PARTS, unknown),
        ConditionType.PROGRESSING: invalid,
        **checks.kstatus(invalid),
    }
    # What an autoscaler reads through /scale must not vanish with a typing mistake.
    kept = {key: before[key] for key in ("replicas", "selector", "url") if key in before}
    return {
        "observedGeneration": generation,
        **kept,
        "conditions": _conditions(before, verdicts, generation, now),
    }


def _conditions(
    before: dict[str, Any], verdicts: dict[ConditionType, Verdict], generation: int, now: str
) -> list[dict[str, Any]]:
    new = [Condition(kind, v.status, v.reason, v.told, generation) for kind, v in verdicts.items()]
    return set_conditions(before.get("conditions") or [], new, now)
