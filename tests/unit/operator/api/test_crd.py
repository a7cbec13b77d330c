from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from s1vl_operator.api.crd import crd, render, schema
from s1vl_operator.api.reference import markdown
from s1vl_operator.api.rules import RULES
from s1vl_operator.api.v1alpha1 import parse
from tests.unit.operator.api.corpus import resource

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("made", "committed", "command"),
    [
        (render, "charts/s1vl/files/crd.yaml", "python -m s1vl_operator crd"),
        (markdown, "docs/crd.md", "python -m s1vl_operator crd --format markdown"),
    ],
)
def test_what_is_committed_is_what_the_models_say(made: Any, committed: str, command: str) -> None:
    assert (ROOT / committed).read_text() == made(), f"run `{command} > {committed}`"


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, below in node.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def test_the_schema_is_structural() -> None:
    for path, node in nodes(schema()):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not node.keys() & {"$ref", "$defs", "title", "const", "oneOf", "allOf", "nullable"}, path
        assert ("anyOf" in node) == ("x-kubernetes-int-or-string" in node), path


def test_every_field_is_described() -> None:
    for path, node in nodes(schema()):
        if path.startswith((".spec", ".status")) and "[]" not in path.rpartition(".")[2]:
            assert node.get("description"), path


def test_everything_that_a_rule_could_walk_over_is_bounded() -> None:
    for path, node in nodes(schema()["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: absent fields get their default, and the defaults' fields theirs."""
    if isinstance(value, list):
        return [defaulted(node["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    filled = {name: below["default"] for name, below in node["properties"].items() if "default" in below} | value
    return {name: defaulted(node["properties"][name], below) for name, below in filled.items()}


def test_the_schemas_defaults_are_the_models() -> None:
    smallest = resource()
    spec = defaulted(schema()["properties"]["spec"], smallest["spec"])
    assert spec["engine"]["gpus"] == 4
    assert parse(smallest | {"spec": spec}).spec == parse(smallest).spec
    said = parse(smallest).spec.model_dump(mode="json", by_alias=True, exclude_none=True)

    def without_empty(value: Any) -> Any:
        if isinstance(value, list):
            return [without_empty(item) for item in value]
        if isinstance(value, dict):
            return {k: without_empty(v) for k, v in value.items() if v not in ({}, [])}
        return value

    assert without_empty(without_empty(spec)) == without_empty(without_empty(said))


def test_every_rule_of_the_api_server_is_in_the_crd() -> None:
    written = [v["rule"] for _, node in nodes(schema()) for v in node.get("x-kubernetes-validations", [])]
    assert sorted(written) == sorted(rule.cel for rule in RULES if rule.cel)


def test_subresources_and_columns() -> None:
    version = crd()["spec"]["versions"][0]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.engine.replicas"
    assert [c["name"] for c in version["additionalPrinterColumns"] if "priority" not in c] == [
        *("Ready", "Reason", "Engine", "Tenants", "URL", "Age")
    ]


def test_it_fits_into_the_annotation_of_kubectl_apply() -> None:
    assert len(render()) < 262144 / 4


def test_it_is_plain_yaml() -> None:
    assert yaml.safe_load(render()) == crd()
    assert "&id" not in render()
