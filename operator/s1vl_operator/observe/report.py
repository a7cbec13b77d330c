"""What an orchestrator pod says on its management port (`GET /internal/tenants`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s1vl_operator.api.reasons import Reason


@dataclass(frozen=True)
class TenantReport:
    """One tenant in the eyes of an orchestrator pod.

    Attributes:
        ready: whether its requests are taken.
        reason: why not.
        message: the same for people.
        consistent: whether its sandbox read what was written for it; None when that was not tried.
        paths_reason: why `consistent` is what it is.
        paths_message: the same for people.
        sessions: of its jobs in each sandbox pod, by the pod's address and port as they stand in a URL.
    """

    ready: bool
    reason: Reason
    message: str
    consistent: bool | None
    paths_reason: Reason
    paths_message: str
    sessions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The answer of one orchestrator pod, or why there is none.

    Attributes:
        pod: its name.
        error: what went wrong; "" when it answered.
        config_version: digest of the configuration that it works with; "" when it has none.
        refusal: why it refused the newest configuration that it read; "" when it did not.
        engine_ready: whether it reaches the engine.
        engine_message: the same for people.
        tenants: by name.
    """

    pod: str
    error: str = ""
    config_version: str = ""
    refusal: str = ""
    engine_ready: bool = False
    engine_message: str = ""
    tenants: Mapping[str, TenantReport] = field(default_factory=dict)


def parse_report(pod: str, answer: Any) -> Report:
    """Read an answer's JSON; one that is not in the agreed form is an error of that pod, never an exception."""
    try:
        return Report(
            pod=pod,
            config_version=str(answer["configVersion"]),
            # An unreadable one has a message too, and is no refusal.
            refusal=str(answer.get("message") or "no message") if answer.get("refused") is True else "",
            engine_ready=answer["engine"]["ready"] is True,
            engine_message=str(answer["engine"].get("message") or ""),
            tenants={str(tenant["name"]): _tenant(tenant) for tenant in answer["tenants"]},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Report(pod=pod, error=f"the answer is not in the expected form: {error!r}"[:300])


def _tenant(tenant: dict[str, Any]) -> TenantReport:
    paths = tenant["paths"]
    consistent = paths["consistent"]
    return TenantReport(
        ready=tenant["ready"] is True,
        reason=_reason(tenant["reason"]),
        message=str(tenant.get("message") or ""),
        consistent=consistent if isinstance(consistent, bool) else None,
        paths_reason=_reason(paths["reason"]),
        paths_message=str(paths.get("message") or ""),
        # An orchestrator of an older version knows no pods.
        sessions={str(pod["address"]): int(pod["sessions"]) for pod in tenant.get("sandboxes") or ()},
    )


def _reason(word: Any) -> Reason:
    # An orchestrator of another version may know more reasons than we do.
    return next((reason for reason in Reason if reason.value == word), Reason.NOT_CHECKED)
