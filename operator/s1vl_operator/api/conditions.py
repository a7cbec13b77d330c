"""Conditions of an S1VLDeployment's status, by the Kubernetes API conventions, and every reason they can have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

Status = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """What the status speaks about; the text after each is its documentation."""

    READY = "Ready", "Clients are served: engine, orchestrator, all sandboxes and all paths are in order."
    ENGINE_READY = "EngineReady", "At least one engine pod answers (none is wanted: also true)."
    ORCHESTRATOR_READY = "OrchestratorReady", "The orchestrator answers and has the current configuration."
    SANDBOXES_READY = "SandboxesReady", "Every tenant's sandbox runs code."
    PATHS_CONSISTENT = (
        "PathsConsistent",
        "A file that the orchestrator wrote for each tenant was read by that tenant's sandbox.",
    )
    PROGRESSING = "Progressing", "The cluster is on its way to what the spec says."

    description: str

    def __new__(cls, value: str, description: str) -> ConditionType:
        """A member is its wire value; its description is for the documentation."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class Reason(StrEnum):
    """Why a condition is as it is: (wire value, what it means, what to do)."""

    ALL_READY = "AllReady", "Everything is in order.", "Nothing."
    INVALID_SPEC = (
        "InvalidSpec",
        "A field says something that cannot be done; the message names it. What ran before goes on running.",
        "Correct the field.",
    )
    RECONCILING = (
        "Reconciling",
        "The operator has seen this generation and is at work; nothing is known yet.",
        "Wait; if it stays, read the operator's log.",
    )
    PAUSED = "Paused", "`spec.paused` is true: nothing is changed.", "Set `spec.paused` to false."
    APPLY_FAILED = (
        "ApplyFailed",
        "The API server refused an object; the message has its name and the refusal.",
        "Follow the message: often a quota, an admission policy or a missing right.",
    )
    IMMUTABLE_FIELD = (
        "ImmutableField",
        "A change needs an object to be replaced that cannot be changed in place.",
        "Undo the change, or delete the object that the message names.",
    )
    NAME_TAKEN = (
        "NameTaken",
        "An object that is needed exists already and belongs to something else.",
        "Delete or rename it, or choose another name for the S1VLDeployment.",
    )
    ROLLOUT_IN_PROGRESS = "RolloutInProgress", "Pods are being replaced or added.", "Wait."
    ROLLOUT_BLOCKED = (
        "RolloutBlocked",
        "A new pod cannot start, so the rollout stands still; the message says why.",
        "Follow the message.",
    )
    STABLE = "Stable", "What runs is what the spec says.", "Nothing."
    ENGINE_READY = "EngineReady", "Every engine pod that is wanted answers.", "Nothing."
    ENGINE_STARTING = (
        "EngineStarting",
        "No engine pod answers yet: weights are being downloaded or loaded.",
        "Wait up to `engine.startupTimeoutSeconds`; see the pod's log.",
    )
    ENGINE_UNREACHABLE = (
        "EngineUnreachable",
        "Engine pods are ready, but no orchestrator reaches one; the message is the orchestrator's.",
        "See whether a NetworkPolicy stands between orchestrator and engine, and whether cluster DNS answers.",
    )
    ENGINE_DEGRADED = "EngineDegraded", "Some, not all, engine pods serve.", "See the message and the pods."
    ENGINE_STALLED = (
        "EngineStalled",
        "Every engine pod has requests and computes nothing, though `/health` answers. One that is at least 10 minutes "
        "old is restarted.",
        "Read the engine's log; raise `engine.stallTimeoutSeconds` if single steps take so long.",
    )
    SCALED_TO_ZERO = "ScaledToZero", "No replicas are wanted.", "Set `replicas` to at least 1 to be served."
    ORCHESTRATOR_READY = "OrchestratorReady", "The orchestrator answers.", "Nothing."
    ORCHESTRATOR_STARTING = (
        "OrchestratorStarting",
        "No orchestrator pod is ready yet.",
        "Wait; see the pod's events and log.",
    )
    ORCHESTRATOR_UNREACHABLE = (
        "OrchestratorUnreachable",
        "The orchestrator's management port does not answer the operator.",
        "See whether a NetworkPolicy stands between operator and orchestrator.",
    )
    CONFIG_NOT_LOADED = (
        "ConfigNotLoaded",
        "The orchestrator still has an older configuration.",
        "Wait a few seconds; then read the orchestrator's log.",
    )
    CONFIGURATION_REFUSED = (
        "ConfigurationRefused",
        "The orchestrator refuses its configuration and goes on with the last one that it took, if any; the message is "
        "the orchestrator's.",
        "Correct what the message names: with `orchestrator.protocolRef` the text of the protocol.",
    )
    PROTOCOL_NOT_FOUND = (
        "ProtocolNotFound",
        "The ConfigMap of `orchestrator.protocolRef`, or its key, does not exist. The last protocol stays in use.",
        "Create it, or correct `orchestrator.protocolRef`.",
    )
    PROTOCOL_INVALID = (
        "ProtocolInvalid",
        "The text that `orchestrator.protocolRef` names is no protocol; the message says why. The last one stays in "
        "use.",
        "Correct the text; docs/protocols.md describes it.",
    )
    SANDBOXES_READY = "SandboxesReady", "Every tenant's sandbox runs code.", "Nothing."
    SANDBOXES_STARTING = (
        "SandboxesStarting",
        "Some tenants' sandboxes are not ready yet; the message names them.",
        "Wait; see the pods' events and log.",
    )
    PATHS_CONSISTENT = "PathsConsistent", "Each tenant's sandbox reads what the orchestrator writes.", "Nothing."
    CANARY_MISMATCH = (
        "CanaryMismatch",
        "A sandbox does not see the file written for it: it has another volume, or has it at another path.",
        "Compare the two paths of the message; look for a `podTemplate` that changes mounts.",
    )
    CANARY_WRITE_FAILED = (
        "CanaryWriteFailed",
        "The orchestrator cannot write to a tenant's folder.",
        "See whether the volume is full, read-only, or its folder is owned by another user than 10001.",
    )
    SANDBOX_UNREACHABLE = (
        "SandboxUnreachable",
        "The orchestrator cannot run code in a tenant's sandbox.",
        "See the sandbox's pod, then NetworkPolicies.",
    )
    PATHS_INCONSISTENT = "PathsInconsistent", "The tenant is refused until its paths agree.", "See PathsConsistent."
    NOT_CHECKED = (
        "NotChecked",
        "Not looked at yet, because something before it is not in order.",
        "See the other conditions.",
    )
    SANDBOX_STARTING = (
        "SandboxStarting",
        "The tenant's sandbox is not ready yet.",
        "Wait; see the pod's events and log.",
    )
    TENANT_READY = "Ready", "The tenant is served.", "Nothing."
    KEY_MISSING = (
        "KeyMissing",
        "The Secret or key with a tenant's API key does not exist.",
        "Create it; see `tenants[].apiKeySecretRef`.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node takes a pod; the message is the scheduler's.",
        "Add GPUs, memory or nodes, or change selectors and tolerations.",
    )
    IMAGE_PULL_BACK_OFF = (
        "ImagePullBackOff",
        "An image cannot be pulled.",
        "Correct the image's name, or add a pull secret through `podTemplate`.",
    )
    CRASH_LOOP_BACK_OFF = (
        "CrashLoopBackOff",
        "A container ends again and again.",
        "Read the log of its previous run; the message has its last words.",
    )
    OOM_KILLED = "OOMKilled", "A container was killed for using more memory than its limit.", "Raise its memory limit."
    ISOLATION_MISSING = (
        "IsolationMissing",
        "`requireIsolation` is strict, and a sandbox's node cannot confine its sessions; the message says what lacks.",
        "Use nodes with Linux 6.12 or newer and Landlock enabled, or set `sandbox.requireIsolation` to bestEffort.",
    )
    CONTAINER_CONFIG_ERROR = (
        "ContainerConfigError",
        "A container cannot be made: a Secret, key or folder that it refers to is missing.",
        "Create what the message names.",
    )
    STORAGE_INIT_FAILED = (
        "StorageInitFailed",
        "A tenant's folder could not be prepared on the image volume.",
        "See the message; often the volume is read-only or owned by another user.",
    )
    PVC_PENDING = (
        "PVCPending",
        "A claim is not bound to a volume.",
        "See the claim's events: storage class, ReadWriteMany, capacity.",
    )
    QUOTA_EXCEEDED = "QuotaExceeded", "A quota of the namespace refuses a pod.", "Raise the quota or ask for less."
    POD_REFUSED = (
        "PodRefused",
        "Pod Security or another admission policy refuses a pod.",
        "Follow the message; `sandbox.profile: aio` needs a namespace that is not `restricted`, `hostPath` one that is "
        "`privileged`.",
    )

    description: str
    remedy: str

    def __new__(cls, value: str, description: str, remedy: str) -> Reason:
        """A member is its wire value; the texts are for the documentation."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        member.remedy = remedy
        return member


@dataclass(frozen=True)
class Condition:
    """One condition without its time, which is only decided against what was there before."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str
    observed_generation: int


def set_conditions(existing: list[dict[str, Any]], new: Iterable[Condition], now: str) -> list[dict[str, Any]]:
    """The conditions to write: `new` in its order, each with the time of its last change of status.

    Args:
        existing: what the status had, on the wire's form.
        new: what is true now; types that are not in it are dropped.
        now: RFC 3339 time in UTC, e.g. 2026-01-31T12:00:00Z.
    """
    before = {condition.get("type"): condition for condition in existing}
    written = []
    for condition in new:
        old = before.get(condition.type.value, {})
        same = old.get("status") == condition.status and old.get("lastTransitionTime")
        written.append(
            {
                "type": condition.type.value,
                "status": condition.status,
                "reason": condition.reason.value,
                "message": condition.message,
                "observedGeneration": condition.observed_generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else now,
            }
        )
    return written
