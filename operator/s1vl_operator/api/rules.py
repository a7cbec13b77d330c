"""What must hold within and between fields: each rule in CEL, for the API server, and in Python, for the operator.

The CRD in a cluster may be older than the operator, so both check; `tests/api` holds the two to the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic.alias_generators import to_snake

from s1vl_operator.api.fields import quantity
from s1vl_operator.api.rule import Rule, absolute, cel, claim, matches, relative

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
CHILD_WORDS = r"-(sandbox|tenant)(-|$)"
"""In a deployment's name these could make its child another's: `a-sandbox` + `-engine` is `a` + `-sandbox-engine`."""
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


def _idle(at: str) -> Rule:
    return Rule(
        at,
        f"must be 0, which is never, or at least {MIN_IDLE_SECONDS}",
        f"self == 0 || self >= {MIN_IDLE_SECONDS}",
        lambda seconds: seconds == 0 or seconds >= MIN_IDLE_SECONDS,
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
        f"{cel(NAME)} && !{cel(CHILD_WORDS)}".replace("self.", "self.metadata.name."),
        lambda cr: matches(NAME, cr.metadata.name) and not matches(CHILD_WORDS, cr.metadata.name),
        blame=lambda _: "metadata.name",
    ),
    absolute("spec.images.clientPath"),
    absolute("spec.images.sandboxPath"),
    Rule(
        "spec.images.sandboxPath",
        f"must neither be nor lie in {', '.join(f'/{word}' for word in RESERVED)}: the sandbox needs them itself",
        f"!{cel(RESERVED_PATH)}",
        lambda path: not matches(RESERVED_PATH, path),
    ),
    *claim("spec.images.volume", "image volume", ("existingClaim", "hostPath")),
    absolute("spec.images.volume.hostPath"),
    Rule(
        "spec.images.retention.sizePerTenant",
        "must be at least 1Mi: leave it out for no limit",
        "quantity(self).compareTo(quantity('1Mi')) >= 0",
        lambda size: quantity(size) >= quantity("1Mi"),
    ),
    *claim("spec.model.cache", "model cache", ("existingClaim",)),
    Rule(
        "spec.model.source",
        "exactly one of huggingFace and existingClaim must be set",
        "has(self.huggingFace) != has(self.existingClaim)",
        lambda source: (source.hugging_face is None) != (source.existing_claim is None),
    ),
    relative("spec.model.source.existingClaim.path"),
    Rule(
        "spec.engine.version",
        "must be a vLLM version from 0.11.0 on, e.g. 0.11.2: older ones cannot load the model",
        cel(VLLM_VERSION),
        lambda version: matches(VLLM_VERSION, version),
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
    relative("spec.tenants[].subPath"),
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
