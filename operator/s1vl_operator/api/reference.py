"""The reference of the custom resource as Markdown, made from the CRD and the reasons; `docs/crd.md` is its output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from s1vl_operator.api.changes import Effect, change
from s1vl_operator.api.conditions import ConditionType
from s1vl_operator.api.crd import Schema, schema
from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import API_VERSION, KIND, RESTARTED_AT, SHORT

HEAD = f"""\
<!-- Made by `python -m s1vl_operator crd --format markdown`; do not edit. -->
# {KIND} (`{API_VERSION}`, `kubectl get {SHORT}`)

Only `spec.tenants` must be set: the defaults are the model card's values. `kubectl explain {SHORT}.spec --recursive`
says the same for the version that is installed.

The engine's pod runs as a user without a name on a read-only root file system. That has been tried with the engine
simulator, not with vLLM on GPUs; `spec.engine.podTemplate` can undo any of it.
"""


ANNOTATIONS = f"""\
## Annotations

`kubectl annotate --overwrite {SHORT}/demo {RESTARTED_AT}="$(date -Is)"` restarts all pods of a deployment, as
`kubectl rollout restart` does with one workload; any other text than the last one does. `kubectl rollout restart` of a
single StatefulSet or Deployment works as well.
"""


def markdown() -> str:
    """The whole reference."""
    root = schema()
    parts = [
        HEAD,
        "## Spec\n",
        "What a change of a field does:\n",
        *(f"- {effect}: {effect.description}" for effect in Effect),
        "",
        _spec(root["properties"]["spec"]),
        ANNOTATIONS,
        "## Rules between fields\n",
        *(f"- `{path}`: {rule['message']}" for path, rule in _rules(root, "")),
        "\n## Status\n",
        _fields(root["properties"]["status"], "status"),
        "## Conditions\n",
        _table(("type", "true means"), ((f"`{kind}`", kind.description) for kind in ConditionType)),
        "## Reasons\n",
        "Of conditions, and of `status.tenants[]`.\n",
        _table(
            ("reason", "what it means", "what to do"),
            ((f"[`{reason}`](runbook/{reason}.md)", reason.description, reason.remedy) for reason in Reason),
        ),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _spec(node: Schema) -> str:
    rows = (
        (f"`{name}`", kind, default, "" if kind == "object" else str(change(name)), text)
        for name, kind, default, text in _walk(node, "spec")
    )
    return _table(("field", "type", "default", "a change is", "what it is"), rows)


def _fields(node: Schema, path: str) -> str:
    rows = ((f"`{name}`", kind, default, text) for name, kind, default, text in _walk(node, path))
    return _table(("field", "type", "default", "what it is"), rows)


def _walk(node: Schema, path: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in node.get("properties", {}).items():
        below = f"{path}.{name}"
        default = "required" if name in node.get("required", ()) else _default(field)
        yield below, _kind(field), default, field.get("description", "")
        items = field.get("items", field)
        yield from _walk(items, f"{below}[]" if "items" in field else below)


def _default(field: Schema) -> str:
    if "default" not in field or field["default"] == {}:
        return ""
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _kind(field: Schema) -> str:
    kind: str = field.get("type", "quantity")
    if "items" in field:
        return f"list of {_kind(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_kind(field['additionalProperties'])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "object, free-form"
    if "minimum" in field and "maximum" in field:
        return f"{kind}, {field['minimum']} to {field['maximum']}"
    return kind


def _rules(node: Schema, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield (f"{path}{rule.get('fieldPath', '')}".strip(".") or "metadata.name"), rule
    for name, field in node.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
    if "items" in node:
        yield from _rules(node["items"], f"{path}[]")


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
