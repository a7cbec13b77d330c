"""A newer operator finds what an older one made; no release is older yet, so that an earlier state stands for it."""

from __future__ import annotations

import base64
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
    for manifest in yaml.safe_load_all(OLDER.read_text()):
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


async def test_an_upgrade_restarts_no_engine_and_loses_nothing(space: Space, operator: Operator) -> None:
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
    rolled = {name for kind, name in WORKLOADS if template(before[kind, name]) != template(after[kind, name])}
    assert rolled == {"demo-orchestrator"}, "CHANGELOG.md says whose pods an upgrade restarts"
    assert {one["metadata"]["uid"] for one in before.values()} == {one["metadata"]["uid"] for one in after.values()}
    assert space.secrets() == keys
    assert {name: space.get("PersistentVolumeClaim", name) for name in claims} == claims
    assert (space.names("StatefulSet"), "demo-sandbox-chem" in space.names("Deployment")) == (["demo-engine"], True)
    assert space.condition("Progressing")["reason"] == "RolloutInProgress", "nothing failed"
    operator.restart()
    operator.reconciler.context = lambda: replace(CONTEXT, keda=False)
    assert await operator.reconcile() == []


WORKLOADS = (("StatefulSet", "demo-engine"), ("Deployment", "demo-orchestrator"))


def template(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]
    return found
