"""The tenants: what is known of each one's sandbox and paths, and what follows for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import S1VLDeployment, TenantSpec
from s1vl_operator.desired import names, sandbox
from s1vl_operator.observe.pods import Problem, is_ready, workload_problem
from s1vl_operator.observe.report import Report, TenantReport
from s1vl_operator.observe.snapshot import Manifest, Snapshot, Workload
from s1vl_operator.observe.verdicts import Verdict, listed


@dataclass(frozen=True)
class TenantVerdict:
    """What is known of one tenant.

    Attributes:
        name: of the tenant.
        sandbox: what is wrong with its sandbox; None when it is ready.
        report: what the orchestrators say of it; None when none with the current configuration answers.
        rest: that its sandbox is asleep or waking, so that nothing is wrong with it and nothing is known of its paths.
    """

    name: str
    sandbox: Problem | None
    report: TenantReport | None
    rest: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether it is served."""
        if self.sandbox:
            return Verdict("False", self.sandbox.reason, self.sandbox.message)
        if self.report is None:
            return Verdict(
                "False", Reason.NOT_CHECKED, "no orchestrator with the current configuration has answered yet"
            )
        if self.rest and (self.report.ready or self.report.reason in _AWAY):
            return self.rest
        if not self.report.ready:
            return Verdict("False", self.report.reason, self.report.message or self.report.paths_message)
        return Verdict("True", Reason.TENANT_READY, "")


_AWAY = frozenset({Reason.SANDBOX_STARTING, Reason.NOT_CHECKED})
"""What orchestrators say of a sandbox without pods: they do not know whether it should have any."""

WAKE_SECONDS = 60.0
"""Age of a pod beyond which its sandbox does not count as waking any more."""


def tenants(snapshot: Snapshot, deployment: S1VLDeployment, now: datetime) -> list[TenantVerdict]:
    """What is known of each tenant, in the spec's order.

    Args:
        snapshot: one look at the cluster.
        deployment: the custom resource; its `status` tells which sandboxes were asleep.
        now: in UTC.
    """
    told = {tenant["name"]: tenant["reason"] for tenant in deployment.status.get("tenants") or []}
    return [_tenant(snapshot, deployment, one, told.get(one.name, ""), now) for one in deployment.spec.tenants]


def sandboxes(found: list[TenantVerdict]) -> Verdict:
    """SandboxesReady: every tenant's sandbox runs code."""
    waiting = [(tenant.name, tenant.sandbox) for tenant in found if tenant.sandbox]
    if not waiting:
        return Verdict("True", Reason.SANDBOXES_READY, f"{len(found)} of {len(found)} sandboxes ready{_resting(found)}")
    # A real problem is worth more than one that only needs time.
    problems = [problem for _, problem in waiting if problem.reason is not Reason.SANDBOX_STARTING]
    reason = problems[0].reason if problems else Reason.SANDBOXES_STARTING
    each = listed([f"{name} ({problem.message})" for name, problem in waiting], "; ")
    return Verdict("False", reason, f"{len(found) - len(waiting)} of {len(found)} sandboxes ready; not ready: {each}")


def paths(found: list[TenantVerdict]) -> Verdict:
    """PathsConsistent: every sandbox read what the orchestrator wrote for its tenant."""
    seen = [t for t in found if t.rest is None or t.rest.reason is not Reason.SANDBOX_ASLEEP]
    wrong = [(t.name, t.report) for t in seen if not t.sandbox and t.report and t.report.consistent is False]
    if wrong:
        each = listed([f"{name}: {report.paths_message or report.paths_reason}" for name, report in wrong], "; ")
        return Verdict("False", wrong[0][1].paths_reason, each)
    awake = [t for t in found if t.rest is None]
    open_ = [t.name for t in awake if t.sandbox or t.report is None or t.report.consistent is None]
    if open_:
        return Verdict("Unknown", Reason.NOT_CHECKED, f"not checked yet: {listed(open_)}")
    return Verdict("True", Reason.PATHS_CONSISTENT, f"{len(awake)} of {len(found)} tenants checked{_resting(found)}")


def _resting(found: list[TenantVerdict]) -> str:
    count = sum(tenant.rest is not None for tenant in found)
    return f", {count} asleep or waking" if count else ""


def _tenant(
    snapshot: Snapshot, deployment: S1VLDeployment, tenant: TenantSpec, told: str, now: datetime
) -> TenantVerdict:
    name, selector = names.sandbox(deployment, tenant.name), names.selector(deployment, "sandbox", tenant.name)
    workload, pods = Workload.of(snapshot.objects.get(("Deployment", name))), snapshot.pods_of(selector)
    report = _combined(snapshot.serving, tenant.name)
    idle = sandbox.idle_timeout(deployment, tenant)
    if idle and workload.exists and workload.wanted == 0:
        message = f"no request for {idle} s; the next one waits until a pod is there"
        return TenantVerdict(tenant.name, None, report, Verdict("True", Reason.SANDBOX_ASLEEP, message))
    wrong = None
    # The pod's own word as well: the controller's count lags behind a pod that has just failed.
    if workload.ready == 0 or not any(is_ready(pod) for pod in pods):
        problem = workload_problem(snapshot, "Deployment", name, selector)
        wrong = problem or Problem(Reason.SANDBOX_STARTING, "the sandbox is starting")
    served = wrong is None and report is not None and report.ready
    passing = wrong is None or wrong.reason is Reason.SANDBOX_STARTING
    if told in _RESTS and not served and passing and all(_age(pod, now) <= WAKE_SECONDS for pod in pods):
        message = "a request came; its first pod is on its way"
        return TenantVerdict(tenant.name, None, report, Verdict("True", Reason.SANDBOX_WAKING, message))
    return TenantVerdict(tenant.name, wrong, report)


_RESTS = frozenset({Reason.SANDBOX_ASLEEP, Reason.SANDBOX_WAKING})


def _age(pod: Manifest, now: datetime) -> float:
    return (now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()


def _combined(reports: list[Report], tenant: str) -> TenantReport | None:
    """The worst of what the pods say: a request may reach any of them."""
    found = [report.tenants[tenant] for report in reports if tenant in report.tenants]
    if not found or len(found) < len(reports):
        return None
    return min(found, key=lambda one: (one.ready, one.consistent is not False, one.consistent is True))
