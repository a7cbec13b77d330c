"""The CustomResourceDefinition, made from the models and rules; `render` is what is committed and installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from s1vl_operator.api.rules import RULES
from s1vl_operator.api.status import S1VLDeploymentStatus
from s1vl_operator.api.v1alpha1 import GROUP, KIND, PLURAL, SHORT, VERSION, S1VLDeploymentSpec

Schema = dict[str, Any]


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: what is the same twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True


KEPT = (
    *("type", "description", "format", "pattern", "enum", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "required", "anyOf"),
)
"""Keywords of JSON schema that mean the same in a structural schema."""

LIST_MAPS = {"spec.tenants": "name", "status.conditions": "type", "status.tenants": "name"}
"""Lists whose items are told apart by a key: merged by it, and no key twice."""

PRINTER_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether clients are served.", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why, as one word.", 0),
    ("Engine", "string", ".status.engine", "Engine pods, ready/wanted.", 0),
    ("Tenants", "string", ".status.tenantsReady", "Tenants, served/all.", 0),
    ("URL", "string", ".status.url", "Where clients inside the cluster reach the service.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Time since the creation.", 0),
    ("Model", "string", ".spec.model.name", "The model.", 1),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "Why, for people.", 1),
)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as an object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT],
                "categories": ["all"],
            },
            "versions": [_version()],
        },
    }


def render() -> str:
    """The CustomResourceDefinition as YAML."""
    head = "# Made by `python -m s1vl_operator crd` from the models in operator/s1vl_operator/api; do not edit.\n"
    return head + yaml.dump(crd(), Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)


def schema() -> Schema:
    """The structural schema of a whole S1VLDeployment."""
    root: Schema = {
        "type": "object",
        "description": "One deployment of S1-VL: an engine, an orchestrator, and a sandbox for each tenant.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _structural(S1VLDeploymentSpec),
            "status": _structural(S1VLDeploymentStatus),
        },
    }
    # Until the operator has seen a new one: kstatus takes an object without conditions for a finished one.
    root["properties"]["status"]["default"] = {"observedGeneration": -1}
    for path, key in LIST_MAPS.items():
        _at(root, path).update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})
    for rule in RULES:
        if rule.cel:
            validation = {"rule": rule.cel, "message": rule.message}
            if rule.field:
                validation["fieldPath"] = f".{rule.field}"
            _at(root, rule.at).setdefault("x-kubernetes-validations", []).append(validation)
    return root


def _version() -> dict[str, Any]:
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "description": description, **({"priority": 1} if wide else {})}
        for name, kind, path, description, wide in PRINTER_COLUMNS
    ]
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.engine.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": schema()},
    }


def _structural(model: type[BaseModel]) -> Schema:
    """The model's JSON schema without what a structural schema has no words for: references, null, const, titles."""
    generated = model.model_json_schema(by_alias=True)
    models = {found.__name__: found for found in _models(model)}
    converted = _convert(generated, generated.get("$defs", {}), models)
    _add_object_defaults(converted, model)
    return converted


def _convert(node: Schema, definitions: dict[str, Schema], models: dict[str, type[BaseModel]]) -> Schema:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        converted = _convert(definitions[name], definitions, models)
        if name in models:
            _add_object_defaults(converted, models[name])
        return {**converted, **_convert({key: node[key] for key in node.keys() & {"description"}}, {}, {})}
    options = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:  # `x: T | None`: an absent field, not a null one.
        outer = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return {**_convert(options[0], definitions, models), **_convert(outer, definitions, models)}
    kept: Schema = {key: node[key] for key in KEPT if key in node}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    kept.update({key: value for key, value in node.items() if key.startswith("x-kubernetes-")})
    if "const" in node:
        kept["enum"] = [node["const"]]
    if _says_something(node.get("default")):
        kept["default"] = node["default"]
    if "properties" in node:
        kept["properties"] = {name: _convert(sub, definitions, models) for name, sub in node["properties"].items()}
    if "items" in node:
        kept["items"] = _convert(node["items"], definitions, models)
    if isinstance(node.get("additionalProperties"), dict) and "x-kubernetes-preserve-unknown-fields" not in node:
        kept["additionalProperties"] = _convert(node["additionalProperties"], definitions, models)
    return kept


def _says_something(default: Any) -> bool:
    """An empty list or object is what an absent one means anyway: no need for it in everybody's YAML."""
    return default is not None and default not in ([], {})


def _add_object_defaults(converted: Schema, model: type[BaseModel]) -> None:
    """Objects that are absent get the fields that the model's factory sets; the API server then fills in the rest."""
    for field in model.model_fields.values():
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        if isinstance(default, BaseModel) and field.alias:
            value = default.model_dump(mode="json", by_alias=True, exclude_unset=True)
            converted["properties"][field.alias]["default"] = value


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and all that it is made of."""
    yield model
    for field in model.model_fields.values():
        for found in _models_in(field.annotation):
            yield from _models(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _at(root: Schema, path: str) -> Schema:
    """The schema at a rule's place."""
    node = root
    for part in path.split(".") if path else []:
        node = node["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            node = node["items"]
    return node
