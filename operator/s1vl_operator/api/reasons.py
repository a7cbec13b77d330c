"""Every reason that a condition or a tenant can have: what it means and what to do, said here and nowhere else."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, NamedTuple


class Nature(Enum):
    """What a reason asks of people."""

    FINE = "as it should be"
    PASSING = "passes by itself"
    TROUBLE = "asks for a hand"


class _Entry(NamedTuple):
    value: str
    description: str
    remedy: str
    nature: Nature
    topic: Topic


class Topic(Enum):
    """What a reason speaks about; `api.runbook` says where such reasons are told and what to look at."""

    WHOLE = "the deployment"
    ENGINE = "the engine"
    ORCHESTRATOR = "the orchestrator"
    SANDBOX = "the sandboxes"
    PATHS = "the volume paths"
    TENANT = "a tenant"
    POD = "a pod"

    def fine(self, value: str, description: str, remedy: str = "Nothing.") -> _Entry:
        """A reason of what is as it should be, or as somebody chose."""
        return _Entry(value, description, remedy, Nature.FINE, self)

    def passing(self, value: str, description: str, remedy: str) -> _Entry:
        """A reason that goes by itself, or follows from another one; `remedy` is for when it stays."""
        return _Entry(value, description, remedy, Nature.PASSING, self)

    def trouble(self, value: str, description: str, remedy: str) -> _Entry:
        """A reason that stays until somebody does something: messages end with `remedy`."""
        return _Entry(value, description, remedy, Nature.TROUBLE, self)


class Reason(StrEnum):
    """Why a condition is as it is."""

    ALL_READY = Topic.WHOLE.fine("AllReady", "Everything is in order.")
    INVALID_SPEC = Topic.WHOLE.trouble(
        "InvalidSpec",
        "A field says something that cannot be done; the message names it. What ran before goes on running.",
        "Correct the field.",
    )
    RECONCILING = Topic.WHOLE.passing(
        "Reconciling",
        "An object that is being deleted must be gone before it can be made anew.",
        "Wait; if it stays, see what holds the object that the message names, often a finalizer.",
    )
    PAUSED = Topic.WHOLE.fine(
        "Paused", "`spec.paused` is true: nothing is changed.", "To go on, set `spec.paused` to false."
    )
    APPLY_FAILED = Topic.WHOLE.trouble(
        "ApplyFailed",
        "The API server refused an object; the message has its name and the refusal.",
        "Mend what the API server names: often a quota, an admission policy or a missing right.",
    )
    IMMUTABLE_FIELD = Topic.WHOLE.trouble(
        "ImmutableField",
        "An object cannot be changed in place to what it should be, and the operator does not replace it by itself: "
        "pods, or what it holds, would be lost.",
        "Undo the change, or delete the object that the message names.",
    )
    NAME_TAKEN = Topic.WHOLE.trouble(
        "NameTaken",
        "An object that is needed exists already and belongs to something else.",
        "Delete or rename that object, or choose another name for the S1VLDeployment.",
    )
    AUTOSCALER_MISSING = Topic.ENGINE.trouble(
        "AutoscalerMissing",
        "`engine.autoscaling.provider` is keda, but the cluster does not serve KEDA's API: the number of engine pods "
        "stays as it is.",
        "Install KEDA, which is noticed within five minutes, or choose another provider.",
    )
    ROLLOUT_IN_PROGRESS = Topic.WHOLE.passing("RolloutInProgress", "Pods are being replaced or added.", "Wait.")
    ROLLOUT_BLOCKED = Topic.POD.trouble(
        "RolloutBlocked",
        "A pod cannot start, so what the spec says does not come about; the message has the pod's own reason. Pods "
        "that still run go on serving.",
        "See the page of the reason that the message names, or undo the change: the pods are then made anew.",
    )
    STABLE = Topic.WHOLE.fine("Stable", "What runs is what the spec says.")
    ENGINE_READY = Topic.ENGINE.fine("EngineReady", "Every engine pod that is wanted answers.")
    ENGINE_STARTING = Topic.ENGINE.passing(
        "EngineStarting",
        "No engine pod answers yet: weights are being downloaded or loaded; the message says how far the pod is.",
        "Wait up to `engine.startupTimeoutSeconds`; see the pod's log.",
    )
    ENGINE_UNREACHABLE = Topic.ENGINE.trouble(
        "EngineUnreachable",
        "Engine pods are ready, but no orchestrator reaches one; the message is the orchestrator's.",
        "See whether a NetworkPolicy stands between orchestrator and engine, and whether cluster DNS answers.",
    )
    ENGINE_DEGRADED = Topic.ENGINE.trouble(
        "EngineDegraded",
        "Some, not all, engine pods serve; the message says what the others lack.",
        "See the engine pods that do not serve.",
    )
    ENGINE_STALLED = Topic.ENGINE.trouble(
        "EngineStalled",
        "Every engine pod has requests and computes nothing, though `/health` answers. One that is at least 10 minutes "
        "old is restarted.",
        "Read the engine's log; raise `engine.stallTimeoutSeconds` if single steps take so long.",
    )
    SCALED_TO_ZERO = Topic.WHOLE.fine(
        "ScaledToZero", "No replicas are wanted.", "To be served, set `replicas` to at least 1."
    )
    ORCHESTRATOR_READY = Topic.ORCHESTRATOR.fine("OrchestratorReady", "The orchestrator answers.")
    ORCHESTRATOR_STARTING = Topic.ORCHESTRATOR.passing(
        "OrchestratorStarting", "No orchestrator pod is ready yet.", "Wait; see the pod's events and log."
    )
    ORCHESTRATOR_UNREACHABLE = Topic.ORCHESTRATOR.trouble(
        "OrchestratorUnreachable",
        "The orchestrator's management port does not answer the operator.",
        "See whether a NetworkPolicy stands between operator and orchestrator.",
    )
    CONFIG_NOT_LOADED = Topic.ORCHESTRATOR.passing(
        "ConfigNotLoaded",
        "The orchestrator still has an older configuration.",
        "Wait a few seconds; then read the orchestrator's log.",
    )
    CONFIGURATION_REFUSED = Topic.ORCHESTRATOR.trouble(
        "ConfigurationRefused",
        "The orchestrator refuses its configuration and goes on with the last one that it took, if any; the message is "
        "the orchestrator's.",
        "Correct what the message names: with `orchestrator.protocolRef` the text of the protocol.",
    )
    PROTOCOL_NOT_FOUND = Topic.ORCHESTRATOR.trouble(
        "ProtocolNotFound",
        "The ConfigMap of `orchestrator.protocolRef`, or its key, does not exist. The last protocol stays in use.",
        "Create the ConfigMap or its key, or correct `orchestrator.protocolRef`.",
    )
    PROTOCOL_INVALID = Topic.ORCHESTRATOR.trouble(
        "ProtocolInvalid",
        "The text that `orchestrator.protocolRef` names is no protocol; the message says why. The last one stays in "
        "use.",
        "Correct the text; docs/protocols.md describes it.",
    )
    SANDBOXES_READY = Topic.SANDBOX.fine("SandboxesReady", "Every tenant's sandbox runs code.")
    SANDBOXES_STARTING = Topic.SANDBOX.passing(
        "SandboxesStarting",
        "Some tenants' sandboxes are not ready yet; the message names them.",
        "Wait; see the pods' events and log.",
    )
    PATHS_CONSISTENT = Topic.PATHS.fine("PathsConsistent", "Each tenant's sandbox reads what the orchestrator writes.")
    CANARY_MISMATCH = Topic.PATHS.trouble(
        "CanaryMismatch",
        "A sandbox does not see the file written for it: it has another volume, or has it at another path.",
        "Compare the two paths of the message; look for a `podTemplate` that changes mounts.",
    )
    CANARY_WRITE_FAILED = Topic.PATHS.trouble(
        "CanaryWriteFailed",
        "The orchestrator cannot write to a tenant's folder.",
        "See whether the volume is full, read-only, or its folder is owned by another user than 10001.",
    )
    SANDBOX_UNREACHABLE = Topic.PATHS.trouble(
        "SandboxUnreachable",
        "The orchestrator cannot run code in a tenant's sandbox.",
        "See the sandbox's pod, then NetworkPolicies.",
    )
    PATHS_INCONSISTENT = Topic.TENANT.trouble(
        "PathsInconsistent", "The tenant is refused until its paths agree.", "See the condition PathsConsistent."
    )
    NOT_CHECKED = Topic.TENANT.passing(
        "NotChecked",
        "Not looked at yet, because something before it is not in order.",
        "See the other conditions.",
    )
    SANDBOX_STARTING = Topic.SANDBOX.passing(
        "SandboxStarting",
        "The tenant's sandbox is not ready yet.",
        "Wait; see the pod's events and log.",
    )
    SANDBOX_ASLEEP = Topic.SANDBOX.fine(
        "SandboxAsleep",
        "No request came for `idleTimeoutSeconds`, so the tenant's sandbox has no pods. The tenant is served all the "
        "same: its next request waits until a pod is there.",
    )
    SANDBOX_WAKING = Topic.SANDBOX.passing(
        "SandboxWaking",
        "A request came for a sandbox that was asleep; the tenant's requests wait for its first pod.",
        "Wait; after a minute the pod's own trouble is told instead.",
    )
    TENANT_READY = Topic.TENANT.fine("Ready", "The tenant is served.")
    KEY_MISSING = Topic.TENANT.trouble(
        "KeyMissing",
        "The Secret or key with a tenant's API key does not exist.",
        "Create the Secret or its key; see `tenants[].apiKeySecretRef`.",
    )
    UNSCHEDULABLE = Topic.POD.trouble(
        "Unschedulable",
        "No node takes a pod; the message is the scheduler's.",
        "Add GPUs, memory or nodes, or change selectors and tolerations.",
    )
    NODE_LOST = Topic.POD.trouble(
        "NodeLost",
        "The node of a pod does not report. Whether the pod still runs is not known; it is replaced only once the "
        "cluster knows that the old one is gone.",
        "Bring the node back; if it is gone for good, delete the Node, or give it the taint "
        "`node.kubernetes.io/out-of-service`.",
    )
    IMAGE_PULL_BACK_OFF = Topic.POD.trouble(
        "ImagePullBackOff",
        "An image cannot be pulled.",
        "Correct the image's name, or add a pull secret through `podTemplate`.",
    )
    CRASH_LOOP_BACK_OFF = Topic.POD.trouble(
        "CrashLoopBackOff",
        "A container ends again and again; the message has its last words.",
        "Read the log of its previous run.",
    )
    OOM_KILLED = Topic.POD.trouble(
        "OOMKilled",
        "A container was killed for using more memory than its limit.",
        "Raise its memory limit (`resources` of the engine, the orchestrator, the sandbox or the tenant's sandbox).",
    )
    ISOLATION_MISSING = Topic.POD.trouble(
        "IsolationMissing",
        "`requireIsolation` is strict, and a sandbox's node cannot confine its sessions; the message says what lacks.",
        "Use nodes with Linux 6.12 or newer and Landlock enabled, or set `sandbox.requireIsolation` to bestEffort.",
    )
    CONTAINER_CONFIG_ERROR = Topic.POD.trouble(
        "ContainerConfigError",
        "A container cannot be made: a Secret, key, folder or volume that it refers to is missing.",
        "Create what the message names.",
    )
    STORAGE_INIT_FAILED = Topic.POD.trouble(
        "StorageInitFailed",
        "A tenant's folder could not be prepared on the image volume.",
        "See whether the volume is read-only or owned by another user.",
    )
    PVC_PENDING = Topic.POD.trouble(
        "PVCPending",
        "A claim is not bound to a volume.",
        "See the claim's events: storage class, ReadWriteMany, capacity.",
    )
    QUOTA_EXCEEDED = Topic.POD.trouble(
        "QuotaExceeded", "A quota of the namespace refuses a pod.", "Raise the quota or ask for less."
    )
    POD_REFUSED = Topic.POD.trouble(
        "PodRefused",
        "Pod Security or another admission policy refuses a pod.",
        "Allow it in the namespace, or ask for less; `sandbox.profile: aio` needs a namespace that is not "
        "`restricted`, `hostPath` one that is `privileged`.",
    )

    description: str
    remedy: str
    nature: Nature
    topic: Topic

    def __new__(cls, *entry: Any) -> Reason:
        """A member is its wire value; the rest is for people."""
        made = _Entry(*entry)
        member = str.__new__(cls, made.value)
        member._value_ = made.value
        member.description = made.description
        member.remedy = made.remedy
        member.nature = made.nature
        member.topic = made.topic
        return member
