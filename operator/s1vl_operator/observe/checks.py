"""The checks, each about one condition: from a snapshot to status, reason and message."""

from __future__ import annotations

from dataclasses import dataclass, replace

from s1vl_operator.api.conditions import ConditionType, Status
from s1vl_operator.api.reasons import Nature, Reason
from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.observe import engines
from s1vl_operator.observe.pods import Problem, is_ready, workload_problem
from s1vl_operator.observe.report import Report, TenantReport
from s1vl_operator.observe.snapshot import Snapshot, Workload

MESSAGE_MAX = 2048
"""Characters of a message at most; the API's own limit is 32768, people's is lower."""

SHOWN = 5
"""Tenants that a message names before it only counts."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        status: of the condition.
        reason: why.
        message: the same for people, without what to do about it.
        cause: what brought the reason about, where that says better what to do.
    """

    status: Status
    reason: Reason
    message: str
    cause: Reason | None = None

    @property
    def told(self) -> str:
        """The message, and what to do where it asks for a hand."""
        cause = self.cause or self.reason
        if cause.nature is not Nature.TROUBLE:
            return self.message[:MESSAGE_MAX]
        said = self.message[: MESSAGE_MAX - len(cause.remedy) - 2].rstrip(". ")
        return f"{said}. {cause.remedy}" if said else cause.remedy


ROLLING = Verdict("False", Reason.ROLLOUT_IN_PROGRESS, "the change is about to reach the pods")


@dataclass(frozen=True)
class TenantVerdict:
    """What is known of one tenant.

    Attributes:
        name: of the tenant.
        sandbox: what is wrong with its sandbox; None when it is ready.
        report: what the orchestrators say of it; None when none with the current configuration answers.
    """

    name: str
    sandbox: Problem | None
    report: TenantReport | None

    @property
    def verdict(self) -> Verdict:
        """Whether it is served."""
        if self.sandbox:
            return Verdict("False", self.sandbox.reason, self.sandbox.message)
        if self.report is None:
            return Verdict(
                "False", Reason.NOT_CHECKED, "no orchestrator with the current configuration has answered yet"
            )
        if not self.report.ready:
            return Verdict("False", self.report.reason, self.report.message or self.report.paths_message)
        return Verdict("True", Reason.TENANT_READY, "")


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


def tenants(snapshot: Snapshot, deployment: S1VLDeployment) -> list[TenantVerdict]:
    """What is known of each tenant, in the spec's order."""
    return [_tenant(snapshot, deployment, tenant.name) for tenant in deployment.spec.tenants]


def sandboxes(found: list[TenantVerdict]) -> Verdict:
    """SandboxesReady: every tenant's sandbox runs code."""
    waiting = [(tenant.name, tenant.sandbox) for tenant in found if tenant.sandbox]
    if not waiting:
        return Verdict("True", Reason.SANDBOXES_READY, f"{len(found)} of {len(found)} sandboxes ready")
    # A real problem is worth more than one that only needs time.
    problems = [problem for _, problem in waiting if problem.reason is not Reason.SANDBOX_STARTING]
    reason = problems[0].reason if problems else Reason.SANDBOXES_STARTING
    each = _list([f"{name} ({problem.message})" for name, problem in waiting], "; ")
    return Verdict("False", reason, f"{len(found) - len(waiting)} of {len(found)} sandboxes ready; not ready: {each}")


def paths(found: list[TenantVerdict]) -> Verdict:
    """PathsConsistent: every sandbox read what the orchestrator wrote for its tenant."""
    wrong = [(t.name, t.report) for t in found if not t.sandbox and t.report and t.report.consistent is False]
    if wrong:
        each = _list([f"{name}: {report.paths_message or report.paths_reason}" for name, report in wrong], "; ")
        return Verdict("False", wrong[0][1].paths_reason, each)
    open_ = [t.name for t in found if t.sandbox or t.report is None or t.report.consistent is None]
    if open_:
        return Verdict("Unknown", Reason.NOT_CHECKED, f"not checked yet: {_list(open_)}")
    return Verdict("True", Reason.PATHS_CONSISTENT, f"{len(found)} of {len(found)} tenants checked")


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
        return Verdict("True", Reason.ROLLOUT_IN_PROGRESS, f"waiting for pods of {_list(moving)}")
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


_ON_ITS_WAY = frozenset({Reason.ROLLOUT_IN_PROGRESS, Reason.ROLLOUT_BLOCKED, Reason.APPLY_FAILED, Reason.RECONCILING})

PARTS = (
    ConditionType.ENGINE_READY,
    ConditionType.ORCHESTRATOR_READY,
    ConditionType.SANDBOXES_READY,
    ConditionType.PATHS_CONSISTENT,
)
"""What Ready is made of."""


def _tenant(snapshot: Snapshot, deployment: S1VLDeployment, tenant: str) -> TenantVerdict:
    name = names.sandbox(deployment, tenant)
    workload = Workload.of(snapshot.objects.get(("Deployment", name)))
    sandbox = None
    # The pod's own word as well: the controller's count lags behind a pod that has just failed.
    pods = [pod for pod in snapshot.pods_of(names.selector(deployment, "sandbox", tenant)) if is_ready(pod)]
    if workload.ready == 0 or not pods:
        problem = workload_problem(snapshot, "Deployment", name, names.selector(deployment, "sandbox", tenant))
        sandbox = problem or Problem(Reason.SANDBOX_STARTING, "the sandbox is starting")
    return TenantVerdict(tenant, sandbox, _combined(_serving(snapshot), tenant))


def _serving_engine(
    snapshot: Snapshot, deployment: S1VLDeployment, workload: Workload, count: str, problem: Problem | None
) -> Verdict:
    """How well an engine with ready pods serves."""
    count, hung = _with(count, problem), sorted(snapshot.hung)
    if hung:
        seconds = deployment.spec.engine.stall_timeout_seconds
        count += f"; had requests and computed nothing for {seconds} s: {_list(hung)}"
    if len(hung) >= workload.ready:
        return Verdict("False", Reason.ENGINE_STALLED, count)
    serving = _serving(snapshot)
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
        pods = _list([report.pod for report in stale]) + "".join(f"; {why}" for why in refused[:1])
        return Verdict("False", Reason.CONFIG_NOT_LOADED, f"{count}; still with an older configuration: {pods}")
    return None


def _serving(snapshot: Snapshot) -> list[Report]:
    """What can be believed of tenants: a pod that refuses the newest configuration goes on with the one before it."""
    answered = [r for r in snapshot.reports if not r.error and r.config_version]
    return [r for r in answered if r.refusal or r.config_version == snapshot.config_version]


def _combined(reports: list[Report], tenant: str) -> TenantReport | None:
    """The worst of what the pods say: a request may reach any of them."""
    found = [report.tenants[tenant] for report in reports if tenant in report.tenants]
    if not found or len(found) < len(reports):
        return None
    return min(found, key=lambda one: (one.ready, one.consistent is not False, one.consistent is True))


def _stages(snapshot: Snapshot, deployment: S1VLDeployment) -> list[str]:
    seconds = deployment.spec.engine.startup_timeout_seconds
    return [engines.stage(pod, seconds) for pod in engines.of(deployment, snapshot.pods)[:1]]


def _with(count: str, problem: Problem | None) -> str:
    return f"{count}; {problem.message}" if problem else count


def _list(words: list[str], separator: str = ", ") -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return separator.join(words[:SHOWN]) + more
