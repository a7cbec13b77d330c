"""A newer operator finds what an older one made; no release is older yet, so that an earlier state stands for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from s1vl_operator.cluster.compare import closed, with_hash
from tests.api.operator.conftest import Operator, Space
from tests.unit.operator.desired.conftest import CONTEXT

ROOT = Path(__file__).parents[3]
OLDER = Path(__file__).parent / "older" / "quickstart.yaml"


async def older(space: Space, operator: Operator, owner: str) -> None:
    """Apply what the older operator had applied, in its way."""
    text = OLDER.read_text().replace("default/demo-", f"{space.namespace}/demo-")
    for manifest in yaml.safe_load_all(text):
        manifest["metadata"]["namespace"] = space.namespace
        for reference in manifest["metadata"].get("ownerReferences", []):
            reference["uid"] = owner
        for subject in manifest.get("subjects", []):
            subject["namespace"] = space.namespace
        if manifest["kind"] == "Secret":
            data = {key: base64.b64encode(b"old").decode() for key in ("apiKey", "apiKeySha256", "cacheSalt")}
            await operator.cluster.create({**manifest, "data": data})
        else:
            await operator.cluster.apply(with_hash(closed(manifest)))


async def test_an_upgrade_changes_pods_where_that_is_wanted_and_loses_nothing(space: Space, operator: Operator) -> None:
    manifest = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    manifest["metadata"]["namespace"] = space.namespace
    made = space.api.request("POST", space.path("S1VLDeployment"), manifest)
    operator.reconciler.context = lambda: replace(CONTEXT, keda=False)
    await older(space, operator, made["metadata"]["uid"])
    before = {key: space.get(*key) for key in WORKLOADS}
    claims = {name: space.get("PersistentVolumeClaim", name) for name in space.names("PersistentVolumeClaim")}
    keys = space.secrets()
    assert "demo-sandbox-chem" in space.names("StatefulSet")

    await operator.converge()
    after = {key: space.get(*key) for key in WORKLOADS}
    # Each of these restarts pods, an engine's for as long as it loads its model: CHANGELOG.md says so.
    assert {name: different(before[kind, name], after[kind, name]) for kind, name in WORKLOADS} == {
        "demo-engine": {"spec.containers.0.terminationMessagePolicy"},
        "demo-orchestrator": {"spec.containers.0.lifecycle", "spec.containers.0.terminationMessagePolicy"},
    }
    assert {one["metadata"]["uid"] for one in before.values()} == {one["metadata"]["uid"] for one in after.values()}
    assert space.secrets() == keys
    assert {name: space.get("PersistentVolumeClaim", name) for name in claims} == claims
    assert (space.names("StatefulSet"), "demo-sandbox-chem" in space.names("Deployment")) == (["demo-engine"], True)
    assert space.condition("Progressing")["reason"] == "RolloutInProgress", "nothing failed"
    operator.restart()
    operator.reconciler.context = lambda: replace(CONTEXT, keda=False)
    assert await operator.reconcile() == []


WORKLOADS = (("StatefulSet", "demo-engine"), ("Deployment", "demo-orchestrator"))


def different(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Where the pod templates of two workloads are not the same."""
    return set(_different(before["spec"]["template"], after["spec"]["template"], ""))


def _different(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from _different(before.get(key), after.get(key), f"{path}.{key}".removeprefix("."))
    elif before != after:
        yield path
