"""What must hold within and between fields: each rule in CEL, for the API server, and in Python, for the operator.

The CRD in a cluster may be older than the operator, so both check; `tests/api` holds the two to the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic.alias_generators import to_snake

from s1vl_operator.api.fields import quantity

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
CHILD_WORDS = r"-(sandbox|tenant)(-|$)"
"""In a deployment's name these could make its child another's: `a-sandbox` + `-engine` is `a` + `-sandbox-engine`."""
ABSOLUTE = r"^(/[^/:\s]+)+$"
DOTS = r"(^|/)[.]{1,2}(/|$)"
RELATIVE = r"^[^./:\s][^/:\s]*(/[^./:\s][^/:\s]*)*$"
RESERVED = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
)
RESERVED_PATH = rf"^/({'|'.join(RESERVED)})(/|$)"
VLLM_VERSION = r"^(0[.](1[1-9]|[2-9][0-9]|[1-9][0-9]{2,})|[1-9][0-9]*[.][0-9]+)[.][0-9]+[.a-z0-9+-]*$"
MIN_IDLE_SECONDS = 30
"""Shorter, a sandbox would go between two requests of one and the same person."""
MANAGEMENT_PORT = 10045
"""Port of the orchestrator's management API, which the operator asks."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        at: where it stands: a dotted path from the resource's root, `[]` for each item of a list; "" is the root.
        message: what is said when it does not hold.
        cel: the rule for the API server, `self` being the value there; "" where the schema says it without CEL.
        holds: the rule for the operator, on the model's value there; None for rules about a change, which only the
            API server can see. As in CEL, a rule about an absent value holds.
        field: path below `at` that is to blame; "" is `at` itself.
        blame: the same, where it depends on the value; for the operator only.
    """

    at: str
    message: str
    cel: str
    holds: Callable[[Any], bool] | None
    field: str = ""
    blame: Callable[[Any], str] | None = None


def _cel(pattern: str) -> str:
    return "self.matches('" + pattern.replace("\\", "\\\\") + "')"


def _found(pattern: str, text: str) -> bool:
    """As CEL's matches: `$` is the end of the text, classes are ASCII."""
    return re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None


def _absolute(at: str) -> Rule:
    return Rule(
        at,
        "must be an absolute, normalised path: it starts with / and does not end with it, and has no //, . or .. as a "
        "part, no spaces and no colons",
        f"{_cel(ABSOLUTE)} && !{_cel(DOTS)}",
        lambda path: _found(ABSOLUTE, path) and not _found(DOTS, path),
    )


def _relative(at: str) -> Rule:
    return Rule(
        at,
        "must be a relative, normalised path (no part may start with a dot, no spaces, no colons), or empty",
        f"self == '' || {_cel(RELATIVE)}",
        lambda path: path == "" or _found(RELATIVE, path),
    )


def _idle(at: str) -> Rule:
    return Rule(
        at,
        f"must be 0, which is never, or at least {MIN_IDLE_SECONDS}",
        f"self == 0 || self >= {MIN_IDLE_SECONDS}",
        lambda seconds: seconds == 0 or seconds >= MIN_IDLE_SECONDS,
    )


def _claim(at: str, what: str, kinds: tuple[str, ...]) -> tuple[Rule, ...]:
    """Rules of a choice between an existing volume and one to be created by its size."""
    same = [f"has(self.{k}) == has(oldSelf.{k}) && (!has(self.{k}) || self.{k} == oldSelf.{k})" for k in kinds]
    same_class = "has(self.storageClassName) == has(oldSelf.storageClassName)"
    same_class += " && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    choices = [*kinds, "size"]
    return (
        Rule(
            at,
            f"exactly one of {', '.join(choices[:-1])} and {choices[-1]} must be set",
            f"[{', '.join(f'has(self.{choice})' for choice in choices)}].exists_one(x, x)",
            lambda volume: sum(getattr(volume, to_snake(choice)) is not None for choice in choices) == 1,
        ),
        Rule(
            at,
            "storageClassName goes with size only",
            "!has(self.storageClassName) || has(self.size)",
            lambda volume: volume.storage_class_name is None or volume.size is not None,
            "storageClassName",
        ),
        Rule(
            at,
            f"the choice of the {what} is immutable: what is on the old one would stay behind",
            " && ".join(["has(self.size) == has(oldSelf.size)", *same, same_class]),
            None,
        ),
        Rule(
            at,
            "size may grow, not shrink",
            "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            None,
            "size",
        ),
    )


def _folder(tenant: str) -> str:
    return f"((has({tenant}.subPath) ? {tenant}.subPath : {tenant}.name) + '/')"


def _repeated(tenants: list[Any]) -> int | None:
    names = [tenant.name for tenant in tenants]
    return next((i for i, name in enumerate(names) if name in names[:i]), None)


def _nested(tenants: list[Any]) -> int | None:
    """The first tenant whose folder is, or lies in, another's; in sorted order such two are neighbours."""
    folders = sorted((f"{tenant.folder}/", i) for i, tenant in enumerate(tenants))
    return next((inner for (outer_path, _), (path, inner) in pairwise(folders) if path.startswith(outer_path)), None)


_NOT_STOCK = "!has(self.profile) || self.profile != 'aio'"
"""The API server tries a rule on the default of an absent object too, before it has filled that in."""


def _strict(tenants: list[Any]) -> int | None:
    return next((i for i, tenant in enumerate(tenants) if tenant.sandbox.require_isolation == "strict"), None)


def _root(tenants: list[Any]) -> int | None:
    return next((i for i, tenant in enumerate(tenants) if not tenant.folder), None) if len(tenants) > 1 else None


RULES: tuple[Rule, ...] = (
    Rule(
        "",
        "metadata.name must be a DNS label of at most 40 characters that starts with a letter, without -sandbox or "
        "-tenant as a part: the names of Services are made from it",
        f"{_cel(NAME)} && !{_cel(CHILD_WORDS)}".replace("self.", "self.metadata.name."),
        lambda cr: _found(NAME, cr.metadata.name) and not _found(CHILD_WORDS, cr.metadata.name),
        blame=lambda _: "metadata.name",
    ),
    _absolute("spec.images.clientPath"),
    _absolute("spec.images.sandboxPath"),
    Rule(
        "spec.images.sandboxPath",
        f"must neither be nor lie in {', '.join(f'/{word}' for word in RESERVED)}: the sandbox needs them itself",
        f"!{_cel(RESERVED_PATH)}",
        lambda path: not _found(RESERVED_PATH, path),
    ),
    *_claim("spec.images.volume", "image volume", ("existingClaim", "hostPath")),
    _absolute("spec.images.volume.hostPath"),
    Rule(
        "spec.images.retention.sizePerTenant",
        "must be at least 1Mi: leave it out for no limit",
        "quantity(self).compareTo(quantity('1Mi')) >= 0",
        lambda size: quantity(size) >= quantity("1Mi"),
    ),
    *_claim("spec.model.cache", "model cache", ("existingClaim",)),
    Rule(
        "spec.model.source",
        "exactly one of huggingFace and existingClaim must be set",
        "has(self.huggingFace) != has(self.existingClaim)",
        lambda source: (source.hugging_face is None) != (source.existing_claim is None),
    ),
    _relative("spec.model.source.existingClaim.path"),
    Rule(
        "spec.engine.version",
        "must be a vLLM version from 0.11.0 on, e.g. 0.11.2: older ones cannot load the model",
        _cel(VLLM_VERSION),
        lambda version: _found(VLLM_VERSION, version),
    ),
    Rule(
        "spec.engine.autoscaling",
        "min must not be greater than max",
        "self.min <= self.max",
        lambda autoscaling: autoscaling.min <= autoscaling.max,
        "min",
    ),
    Rule(
        "spec.engine.autoscaling",
        "at least one of waitingRequestsPerReplica and runningRequestsPerReplica must be set",
        "has(self.waitingRequestsPerReplica) || has(self.runningRequestsPerReplica)",
        lambda scaling: (scaling.waiting_requests_per_replica or scaling.running_requests_per_replica) is not None,
    ),
    Rule(
        "spec.engine.autoscaling",
        "the provider keda needs prometheusAddress",
        "self.provider != 'keda' || has(self.prometheusAddress)",
        lambda autoscaling: autoscaling.provider != "keda" or autoscaling.prometheus_address is not None,
        "prometheusAddress",
    ),
    Rule(
        "spec.sandbox",
        "the profile aio needs an image, best pinned by its digest: there is no default one",
        f"{_NOT_STOCK} || has(self.image)",
        lambda sandbox: sandbox.profile != "aio" or sandbox.image is not None,
        "image",
    ),
    Rule(
        "spec.sandbox",
        "the profile aio confines no session by itself: strict goes with s1vl only",
        f"{_NOT_STOCK} || !has(self.requireIsolation) || self.requireIsolation != 'strict'",
        lambda sandbox: sandbox.profile != "aio" or sandbox.require_isolation != "strict",
        "requireIsolation",
    ),
    Rule(
        "spec",
        "the profile aio confines no session by itself: no tenant can require strict",
        "self.sandbox.profile != 'aio' || self.tenants.all(t, !has(t.sandbox) || !has(t.sandbox.requireIsolation)"
        " || t.sandbox.requireIsolation != 'strict')",
        lambda spec: spec.sandbox.profile != "aio" or _strict(spec.tenants) is None,
        blame=lambda spec: f"tenants[{_strict(spec.tenants)}].sandbox.requireIsolation",
    ),
    _idle("spec.sandbox.idleTimeoutSeconds"),
    _idle("spec.tenants[].sandbox.idleTimeoutSeconds"),
    Rule(
        "spec.orchestrator",
        "only one of replicas and autoscaling may be set",
        "!(has(self.replicas) && has(self.autoscaling))",
        lambda orchestrator: orchestrator.replicas is None or orchestrator.autoscaling is None,
    ),
    Rule(
        "spec.orchestrator",
        "only one of protocol and protocolRef may be set",
        "!(has(self.protocol) && has(self.protocolRef))",
        lambda orchestrator: orchestrator.protocol is None or orchestrator.protocol_ref is None,
    ),
    Rule(
        "spec.orchestrator.port",
        f"{MANAGEMENT_PORT} is where the operator asks the orchestrator; choose another",
        f"self != {MANAGEMENT_PORT}",
        lambda port: port != MANAGEMENT_PORT,
    ),
    Rule(
        "spec.orchestrator.autoscaling",
        "min must not be greater than max",
        "self.min <= self.max",
        lambda autoscaling: autoscaling.min <= autoscaling.max,
        "min",
    ),
    Rule(
        "spec",
        "anonymousTenant must be the name of one of the tenants, or empty",
        "self.orchestrator.anonymousTenant == ''"
        " || self.tenants.exists(t, t.name == self.orchestrator.anonymousTenant)",
        lambda spec: spec.orchestrator.anonymous_tenant in ["", *(tenant.name for tenant in spec.tenants)],
        "orchestrator.anonymousTenant",
    ),
    Rule(
        "spec.tenants",
        "Duplicate value: the names of tenants must be unique",
        "",
        lambda tenants: _repeated(tenants) is None,
        blame=lambda tenants: f"[{_repeated(tenants)}].name",
    ),
    _relative("spec.tenants[].subPath"),
    Rule(
        "spec.tenants",
        "an empty subPath (the whole volume) is for a single tenant only",
        "self.size() == 1 || self.all(t, !has(t.subPath) || t.subPath != '')",
        lambda tenants: _root(tenants) is None,
        blame=lambda tenants: f"[{_root(tenants)}].subPath",
    ),
    Rule(
        "spec.tenants",
        "the subPath of one tenant must neither be another's nor lie in it (absent, it is the tenant's name)",
        f"self.all(a, self.all(b, a.name == b.name || !{_folder('b')}.startsWith({_folder('a')})))",
        lambda tenants: _root(tenants) is not None or _nested(tenants) is None,
        blame=lambda tenants: f"[{_nested(tenants)}].subPath",
    ),
)
"""Every rule, in the order in which they are reported."""


def broken(deployment: Any) -> list[tuple[str, str]]:
    """What does not hold in an `S1VLDeployment`: (path from its root, message), in the order of `RULES`."""
    return [
        (_join(path, rule.blame(value) if rule.blame else rule.field), rule.message.removeprefix("metadata.name "))
        for rule in RULES
        if rule.holds
        for path, value in _values(deployment, rule.at)
        if not rule.holds(value)
    ]


def _values(deployment: Any, at: str) -> Iterator[tuple[str, Any]]:
    """The present values at a place, each with its full path."""
    found = [("", deployment)]
    for part in at.split(".") if at else []:
        name = part.removesuffix("[]")
        found = [(_join(path, name), getattr(value, to_snake(name))) for path, value in found]
        found = [(path, value) for path, value in found if value is not None]
        if part.endswith("[]"):
            found = [(f"{path}[{i}]", item) for path, items in found for i, item in enumerate(items)]
    yield from found


def _join(path: str, below: str) -> str:
    return path + below if not path or not below or below.startswith("[") else f"{path}.{below}"
