from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from s1vl_operator.api.v1alpha1 import InvalidSpec, parse
from tests.unit.operator.api.corpus import BAD, GOOD, Resource, resource

EXAMPLES = sorted((Path(__file__).parents[4] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_accepts(good: Resource) -> None:
    assert parse(good).name == good["metadata"]["name"]


@pytest.mark.parametrize(("bad", "path", "said"), BAD.values(), ids=BAD)
def test_refuses_and_says_where_and_why(bad: Resource, path: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(bad)
    assert refused.value.path.startswith(path)
    assert said in refused.value.message


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples(example: Path) -> None:
    # What else there is stands before it, as kubectl creates it.
    *_, manifest = yaml.safe_load_all(example.read_text())
    manifest["metadata"]["namespace"] = "default"
    assert parse(manifest).spec.tenants


def test_the_defaults_are_the_model_cards() -> None:
    spec = parse(resource()).spec
    assert spec.model.name == "ScienceOne-AI/S1-VL-32B"
    engine = spec.engine
    assert (engine.gpus, engine.max_model_len, engine.images_per_prompt, engine.port) == (4, 32768, 15, 9200)
    assert (engine.reasoning_parser, engine.prefix_caching, engine.gpu_memory_utilization) == (
        "deepseek_r1",
        True,
        "0.95",
    )
    assert (spec.images.client_path, spec.images.sandbox_path) == ("/data/images", "/mnt/data/images")
    assert spec.orchestrator.port == 10044
    assert spec.orchestrator.deadline_seconds < 300, "the card's client gives up after 300 s"


@pytest.mark.parametrize(
    ("spec", "path", "said"),
    [
        ({"engine": {"gpu": 4}}, "spec.engine.gpu", "not permitted"),
        ({"tenants": [{"name": "a"}, {"name": "b", "subPath": "a/b"}]}, "spec.tenants[1].subPath", "nor lie in it"),
        ({"tenants": [{"name": "a"}, {"name": "b", "subPath": ""}]}, "spec.tenants[1].subPath", "single tenant"),
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "spec.tenants[1].name", "unique"),
        ({"tenants": [{}]}, "spec.tenants[0].name", "required"),
        ({"engine": {"gpus": 3, "port": 1}}, "spec.engine.gpus", "(and 1 more)"),
        ({"sandbox": {"resources": {"limits": {"cpu": True}}}}, "spec.sandbox.resources.limits.cpu", "whole number"),
        ({"sandbox": {"resources": {"limits": {"cpu": 1.5}}}}, "spec.sandbox.resources.limits.cpu", "whole number"),
        ({"engine": {"image": " "}}, "spec.engine.image", "must not be empty"),
        ({"engine": None}, "spec.engine", "dictionary"),
        ({"sandbox": {"profile": "e2b"}}, "spec.sandbox.profile", "s1vl"),
    ],
)
def test_names_the_very_field(spec: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(resource(spec))
    assert refused.value.path == path
    assert said in refused.value.message
    assert str(refused.value) == f"{path}: {refused.value.message}"


def test_a_resource_without_spec() -> None:
    with pytest.raises(InvalidSpec, match=r"spec: Field required"):
        parse({"metadata": {"name": "demo", "namespace": "x"}})


def test_keeps_the_status_as_it_is_and_ignores_other_metadata() -> None:
    cr = resource() | {"status": {"conditions": "nonsense"}}
    cr["metadata"] |= {"uid": "u", "generation": 7, "managedFields": []}
    deployment = parse(cr)
    assert deployment.status == {"conditions": "nonsense"}
    assert (deployment.metadata.uid, deployment.metadata.generation, deployment.namespace) == ("u", 7, "default")


def test_a_tenants_folder() -> None:
    tenants = parse(resource({"tenants": [{"name": "a"}, {"name": "b", "subPath": "x/y"}]})).spec.tenants
    assert [tenant.folder for tenant in tenants] == ["a", "x/y"]


def test_quantities_are_strings_whichever_way_they_are_written() -> None:
    spec = parse(resource({"sandbox": {"resources": {"limits": {"cpu": 2, "memory": "1Gi"}}}})).spec
    assert spec.sandbox.resources.limits == {"cpu": "2", "memory": "1Gi"}
