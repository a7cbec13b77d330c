"""The runbook: a page for every reason, made from what the reason says; `docs/runbook` is its output.

In commands NAME is the S1VLDeployment, and the other words in capitals are explained where they occur.
"""

from __future__ import annotations

from collections.abc import Iterator

from s1vl_operator.api.conditions import ConditionType
from s1vl_operator.api.reasons import Nature, Reason, Topic

HEAD = "<!-- Made by `python -m s1vl_operator runbook docs/runbook`; do not edit. -->\n"

TENANTS = "status.tenants[]"
"""Where a tenant's own reason is told, beside the conditions."""

_PARTS = (ConditionType.ENGINE_READY, ConditionType.ORCHESTRATOR_READY, ConditionType.SANDBOXES_READY)
_READY, _PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING

TOLD: dict[Topic, tuple[str, ...]] = {
    Topic.WHOLE: (_READY, _PROGRESSING),
    Topic.ENGINE: (ConditionType.ENGINE_READY, _READY),
    Topic.ORCHESTRATOR: (ConditionType.ORCHESTRATOR_READY, _READY),
    Topic.SANDBOX: (ConditionType.SANDBOXES_READY, TENANTS, _READY),
    Topic.PATHS: (ConditionType.PATHS_CONSISTENT, TENANTS, _READY),
    Topic.TENANT: (TENANTS, _READY),
    Topic.POD: (*_PARTS, TENANTS, _READY),
}
"""The conditions and fields that have a topic's reasons."""

TOLD_ELSEWHERE: dict[Reason, tuple[str, ...]] = {
    Reason.ALL_READY: (_READY,),
    Reason.PAUSED: (_PROGRESSING,),
    Reason.STABLE: (_PROGRESSING,),
    Reason.ROLLOUT_IN_PROGRESS: (_PROGRESSING, ConditionType.ENGINE_READY, ConditionType.ORCHESTRATOR_READY, _READY),
    Reason.ROLLOUT_BLOCKED: (_PROGRESSING,),
    Reason.AUTOSCALER_MISSING: (_PROGRESSING,),
    Reason.SCALED_TO_ZERO: (ConditionType.ENGINE_READY, ConditionType.ORCHESTRATOR_READY, _READY),
    Reason.NOT_CHECKED: (ConditionType.PATHS_CONSISTENT, TENANTS, _READY),
    Reason.SANDBOXES_READY: (ConditionType.SANDBOXES_READY,),
    Reason.SANDBOXES_STARTING: (ConditionType.SANDBOXES_READY, _READY),
}
"""Reasons that are told in other places than the rest of their topic."""

_DESCRIBE = "kubectl describe s1vl NAME -n NAMESPACE"
_OPERATOR_LOG = "kubectl logs -n OPERATOR_NAMESPACE -l app.kubernetes.io/name=s1vl-operator --prefix --tail=50"
_TENANTS = (
    "kubectl get s1vl NAME -n NAMESPACE "
    """-o jsonpath='{range .status.tenants[*]}{.name}{"\\t"}{.reason}{"\\t"}{.message}{"\\n"}{end}'"""
)
_NETWORK = "kubectl describe networkpolicies -n NAMESPACE -l s1vl.io/deployment=NAME"
_POD = "kubectl describe pod POD -n NAMESPACE"
_REFUSALS = "kubectl get events -n NAMESPACE --field-selector reason=FailedCreate"
_SECRETS = "kubectl get secrets -n NAMESPACE"
_CONFIG_MAPS = "kubectl get configmaps -n NAMESPACE"
_PROTOCOL = "kubectl get s1vl NAME -n NAMESPACE -o jsonpath='{.spec.orchestrator.protocolRef}'"


def _pods(component: str) -> str:
    return f"kubectl get pods -n NAMESPACE -l s1vl.io/deployment=NAME,app.kubernetes.io/component={component} -o wide"


def _logs(component: str, container: str) -> str:
    selector = f"s1vl.io/deployment=NAME,app.kubernetes.io/component={component}"
    return f"kubectl logs -n NAMESPACE -l {selector} -c {container} --prefix --tail=50"


_ENGINE = (_pods("engine"), _logs("engine", "vllm"))
_ORCHESTRATOR = (_pods("orchestrator"), _logs("orchestrator", "orchestrator"))

LOOK: dict[Topic, tuple[str, ...]] = {
    Topic.WHOLE: (_DESCRIBE, _OPERATOR_LOG),
    Topic.ENGINE: (_DESCRIBE, *_ENGINE),
    Topic.ORCHESTRATOR: (_DESCRIBE, *_ORCHESTRATOR),
    Topic.SANDBOX: (_TENANTS, _pods("sandbox")),
    Topic.PATHS: (_TENANTS, _pods("sandbox"), _logs("orchestrator", "orchestrator")),
    Topic.TENANT: (_TENANTS, *_ORCHESTRATOR),
    Topic.POD: (_DESCRIBE, "kubectl get pods -n NAMESPACE -l s1vl.io/deployment=NAME -o wide"),
}
"""What to look at for a topic's reasons, from the whole to the part."""

LOOK_CLOSER: dict[Reason, tuple[str, ...]] = {
    Reason.INVALID_SPEC: ("kubectl explain s1vl.spec --recursive",),
    Reason.ROLLOUT_BLOCKED: (
        _POD,
        "kubectl get statefulsets,deployments -n NAMESPACE -l s1vl.io/deployment=NAME",
    ),
    Reason.AUTOSCALER_MISSING: ("kubectl api-resources --api-group=keda.sh",),
    Reason.ENGINE_UNREACHABLE: (_NETWORK,),
    Reason.ORCHESTRATOR_UNREACHABLE: (_NETWORK,),
    Reason.SANDBOX_UNREACHABLE: (_NETWORK,),
    Reason.PROTOCOL_NOT_FOUND: (_PROTOCOL, _CONFIG_MAPS),
    Reason.PROTOCOL_INVALID: (_PROTOCOL, _CONFIG_MAPS),
    Reason.KEY_MISSING: (_SECRETS,),
    Reason.UNSCHEDULABLE: (
        _POD,
        "kubectl get nodes -o custom-columns=NAME:.metadata.name,ALLOCATABLE:.status.allocatable",
        "kubectl describe nodes",
    ),
    Reason.NODE_LOST: (_POD, "kubectl get nodes -o wide", "kubectl describe node NODE"),
    Reason.IMAGE_PULL_BACK_OFF: (
        _POD,
        "kubectl get events -n NAMESPACE --field-selector involvedObject.name=POD",
    ),
    Reason.CRASH_LOOP_BACK_OFF: (
        _POD,
        "kubectl logs POD -n NAMESPACE -c CONTAINER --previous --tail=50",
    ),
    Reason.OOM_KILLED: (
        _POD,
        "kubectl get pod POD -n NAMESPACE "
        """-o jsonpath='{range .spec.containers[*]}{.name}{"\\t"}{.resources.limits.memory}{"\\n"}{end}'""",
    ),
    Reason.ISOLATION_MISSING: (
        _POD,
        "kubectl get nodes -o wide",
    ),
    Reason.CONTAINER_CONFIG_ERROR: (_POD, _SECRETS, _CONFIG_MAPS),
    Reason.STORAGE_INIT_FAILED: (
        _POD,
        "kubectl logs POD -n NAMESPACE -c storage-init",
    ),
    Reason.PVC_PENDING: (
        _POD,
        "kubectl get pvc -n NAMESPACE",
        "kubectl describe pvc -n NAMESPACE",
        "kubectl get storageclass",
    ),
    Reason.QUOTA_EXCEEDED: ("kubectl describe resourcequota -n NAMESPACE", _REFUSALS),
    Reason.POD_REFUSED: ("kubectl get namespace NAMESPACE --show-labels", _REFUSALS),
}
"""What more to look at for a reason."""

WORDS = {
    "NAME": "the S1VLDeployment",
    "NAMESPACE": "its namespace",
    "OPERATOR_NAMESPACE": "the namespace that the chart is installed in",
    "POD": "the pod that the message names",
    "CONTAINER": "the container that the message names",
    "NODE": "the node that the message names",
}
"""What to put for the words in capitals."""


def told(reason: Reason) -> tuple[str, ...]:
    """The conditions and fields of the status that can have this reason; a fine part is never what Ready is about."""
    places = TOLD_ELSEWHERE.get(reason, TOLD[reason.topic])
    part = reason.nature is Nature.FINE and reason not in TOLD_ELSEWHERE
    return tuple(place for place in places if not (part and place == _READY))


def commands(reason: Reason) -> tuple[str, ...]:
    """What to look at, as command lines with words in capitals to be replaced."""
    return (*LOOK[reason.topic], *LOOK_CLOSER.get(reason, ()))


def pages() -> dict[str, str]:
    """File name -> Markdown: the index, and a page for every reason."""
    return {"README.md": _index(), **{f"{reason}.md": _page(reason) for reason in Reason}}


def _page(reason: Reason) -> str:
    lines = commands(reason)
    asked = [word for word in WORDS if any(word in _words(line) for line in lines)]
    words = ", ".join(f"`{word}`: {WORDS[word]}" for word in asked)
    parts = [
        f"{HEAD}# {reason}\n",
        f"{reason.description}\n",
        f"Told in {_places(told(reason))}; {reason.nature.value}.\n",
        "## What to look at\n",
        "\n".join(["```sh", *lines, "```\n"]),
        f"{words}.\n" if words else "",
        "## What to do\n",
        f"{reason.remedy}\n",
    ]
    return "\n".join(part for part in parts if part)


def _index() -> str:
    parts = [
        f"{HEAD}# Runbook\n",
        "A page for every reason that a condition of an S1VLDeployment, or a tenant in its status, can have. "
        "`kubectl get s1vl -A`\nshows the reason of `Ready`; `kubectl describe s1vl NAME -n NAMESPACE` that of each "
        "condition and tenant, with what to do at\nthe end of its message.\n",
    ]
    for nature in reversed(Nature):
        parts += [f"## {nature.value.capitalize()}\n", *_rows(nature), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(nature: Nature) -> Iterator[str]:
    yield "| reason | speaks about | what it means |"
    yield "| --- | --- | --- |"
    for reason in sorted(reason for reason in Reason if reason.nature is nature):
        yield f"| [`{reason}`]({reason}.md) | {reason.topic.value} | {reason.description} |"


def _places(places: tuple[str, ...]) -> str:
    quoted = [f"`{place}`" for place in places]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _words(line: str) -> set[str]:
    return set(line.replace("=", " ").replace(",", " ").replace("-n", " ").split())
