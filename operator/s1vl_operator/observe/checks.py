"""The checks, each about one condition: from a snapshot to status, reason and message."""

from __future__ import annotations

from dataclasses import replace

from s1vl_operator.api.conditions import ConditionType
from s1vl_operator.api.reasons import Nature, Reason
from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.observe import engines
from s1vl_operator.observe.pods import Problem, workload_problem
from s1vl_operator.observe.snapshot import Snapshot, Workload
from s1vl_operator.observe.tenants import TenantVerdict
from s1vl_operator.observe.verdicts import Verdict, listed

ROLLING = Verdict("False", Reason.ROLLOUT_IN_PROGRESS, "the change is about to reach the pods")


def engine(snapshot: Snapshot, deployment: S1VLDeployment) -> Verdict:
    """EngineReady: at least one pod answers, in the kubelet's eyes and in the orchestrator's."""
    name, wanted = names.engine(deployment), deployment.spec.engine.replicas
    if wanted == 0:
        return Verdict("True", Reason.SCALED_TO_ZERO, "spec.engine.replicas is 0")
    workload = Workload.of(snapshot.objects.get(("StatefulSet", name)))
    count = f"{workload.ready} of {wanted} engine pods ready"
    problem = workload_problem(snapshot, "StatefulSet", name, names.selector(deployment, "engine"))
    if workload.behind:
        return ROLLING
    if workload.ready == 0:
        if problem:
            return Verdict("False", problem.reason, _with(count, problem))
        return Verdict("False", Reason.ENGINE_STARTING, "; ".join([count, *_stages(snapshot, deployment)]))
    return _serving_engine(snapshot, deployment, workload, count, problem)


def orchestrator(snapshot: Snapshot, deployment: S1VLDeployment) -> Verdict:
    """OrchestratorReady: at least one pod answers, also on its management port, and has the current configuration."""
    name = names.orchestrator(deployment)
    workload = Workload.of(snapshot.objects.get(("Deployment", name)))
    if workload.exists and workload.wanted == 0:
        return Verdict("False", Reason.SCALED_TO_ZERO, "spec.orchestrator.replicas is 0")
    count = f"{workload.ready} of {max(workload.wanted, 1)} orchestrator pods ready"
    problem = workload_problem(snapshot, "Deployment", name, names.selector(deployment, "orchestrator"))
    if workload.behind:
        return ROLLING
    if workload.ready == 0 and problem:
        return Verdict("False", problem.reason, _with(count, problem))
    if wrong := _misconfigured(snapshot, workload, count):
        return wrong
    if workload.ready == 0:
        return Verdict("False", Reason.ORCHESTRATOR_STARTING, count)
    return Verdict("True", Reason.ORCHESTRATOR_READY, _with(count, problem))


def progressing(snapshot: Snapshot, deployment: S1VLDeployment) -> Verdict:
    """Progressing: True while pods come and go, False when nothing moves, for good or ill."""
    if snapshot.hindrance:
        return Verdict("False", snapshot.hindrance.reason, snapshot.hindrance.message)
    workloads = [("StatefulSet", names.engine(deployment), names.selector(deployment, "engine"))]
    workloads += [
        ("Deployment", names.sandbox(deployment, tenant.name), names.selector(deployment, "sandbox", tenant.name))
        for tenant in deployment.spec.tenants
    ]
    workloads.append(("Deployment", names.orchestrator(deployment), names.selector(deployment, "orchestrator")))
    moving = []
    for kind, name, selector in workloads:
        workload = Workload.of(snapshot.objects.get((kind, name)))
        if workload.settled:
            continue
        # What its controller has not acted on yet may be the very correction of what is wrong with its pods.
        if not workload.unseen and (problem := workload_problem(snapshot, kind, name, selector)):
            message = f"{name} is held up, {problem.reason}: {problem.message}"
            return Verdict("False", Reason.ROLLOUT_BLOCKED, message, problem.reason)
        moving.append(name)
    if moving:
        return Verdict("True", Reason.ROLLOUT_IN_PROGRESS, f"waiting for pods of {listed(moving)}")
    if snapshot.autoscaler:
        return Verdict("False", Reason.AUTOSCALER_MISSING, snapshot.autoscaler)
    return Verdict("False", Reason.STABLE, "every pod is made from the current spec and ready")


def ready(snapshot: Snapshot, verdicts: dict[ConditionType, Verdict], found: list[TenantVerdict]) -> Verdict:
    """Ready: the first of the others, in the order of cause and effect, that is not in order."""
    if snapshot.hindrance and snapshot.hindrance.reason is not Reason.PAUSED:
        return Verdict("False", snapshot.hindrance.reason, snapshot.hindrance.message)
    if verdicts[ConditionType.ENGINE_READY].reason is Reason.SCALED_TO_ZERO:
        return Verdict("False", Reason.SCALED_TO_ZERO, verdicts[ConditionType.ENGINE_READY].message)
    for kind in PARTS:
        if verdicts[kind].status != "True":
            return replace(verdicts[kind], status="False")
    for tenant in found:
        if tenant.verdict.status != "True":
            return Verdict("False", tenant.verdict.reason, f"tenant {tenant.name}: {tenant.verdict.message}")
    return Verdict("True", Reason.ALL_READY, f"{len(found)} tenants are served")


def kstatus(progressing: Verdict) -> dict[ConditionType, Verdict]:
    """Reconciling or Stalled, which kstatus looks for before Ready; nothing where Ready says it all.

    A deployment that serves while its rollout goes on, or stands still, is Ready, and not yet what the spec says.
    Stalled makes tools give up waiting: not for what others may mend meanwhile, as an autoscaler of nodes does.
    """
    if progressing.reason in _ON_ITS_WAY:
        return {ConditionType.RECONCILING: replace(progressing, status="True")}
    if progressing.reason.nature is Nature.TROUBLE:
        return {ConditionType.STALLED: replace(progressing, status="True")}
    return {}


_ON_ITS_WAY = frozenset(
    {
        Reason.ROLLOUT_IN_PROGRESS,
        Reason.ROLLOUT_BLOCKED,
        Reason.APPLY_FAILED,
        Reason.RECONCILING,
        Reason.AUTOSCALER_MISSING,
    }
)

PARTS = (
    ConditionType.ENGINE_READY,
    ConditionType.ORCHESTRATOR_READY,
    ConditionType.SANDBOXES_READY,
    ConditionType.PATHS_CONSISTENT,
)
"""What Ready is made of."""


def _serving_engine(
    snapshot: Snapshot, deployment: S1VLDeployment, workload: Workload, count: str, problem: Problem | None
) -> Verdict:
    """How well an engine with ready pods serves."""
    count, hung = _with(count, problem), sorted(snapshot.hung)
    if hung:
        seconds = deployment.spec.engine.stall_timeout_seconds
        count += f"; had requests and computed nothing for {seconds} s: {listed(hung)}"
    if len(hung) >= workload.ready:
        return Verdict("False", Reason.ENGINE_STALLED, count)
    serving = snapshot.serving
    deaf = [report for report in serving if not report.engine_ready]
    if deaf and len(deaf) == len(serving):
        message = f"{count}, but the orchestrator does not reach the engine: {deaf[0].engine_message or 'no message'}"
        return Verdict("False", Reason.ENGINE_UNREACHABLE, message)
    if hung or workload.ready < deployment.spec.engine.replicas:
        cause = problem.reason if problem else None
        return Verdict("True", Reason.ENGINE_DEGRADED, count, cause)
    return Verdict("True", Reason.ENGINE_READY, count)


def _misconfigured(snapshot: Snapshot, workload: Workload, count: str) -> Verdict | None:
    """Why not everybody has the configuration that the spec asks for; None when each that answers has it."""
    if snapshot.protocol:
        return Verdict("False", snapshot.protocol.reason, snapshot.protocol.message)
    answered = [report for report in snapshot.reports if not report.error]
    stale = [report for report in answered if report.config_version != snapshot.config_version]
    refused = [f"{report.pod}: {report.refusal}" for report in stale if report.refusal]
    # While pods are replaced, an old one may refuse what only the new ones know.
    if refused and (workload.settled or workload.ready == 0):
        return Verdict("False", Reason.CONFIGURATION_REFUSED, f"{count}; {refused[0]}")
    if workload.ready == 0:
        return None
    if not answered:
        why = "; ".join(f"{report.pod}: {report.error}" for report in snapshot.reports[:1]) or "no pod has an address"
        return Verdict("False", Reason.ORCHESTRATOR_UNREACHABLE, f"{count}, but none answers the operator: {why}")
    if stale:
        pods = listed([report.pod for report in stale]) + "".join(f"; {why}" for why in refused[:1])
        return Verdict("False", Reason.CONFIG_NOT_LOADED, f"{count}; still with an older configuration: {pods}")
    return None


def _stages(snapshot: Snapshot, deployment: S1VLDeployment) -> list[str]:
    seconds = deployment.spec.engine.startup_timeout_seconds
    return [engines.stage(pod, seconds) for pod in engines.of(deployment, snapshot.pods)[:1]]


def _with(count: str, problem: Problem | None) -> str:
    return f"{count}; {problem.message}" if problem else count
