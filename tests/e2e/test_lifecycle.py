"""Children come back, tenants come and go, and a deleted CR leaves only claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.demo import ask, picture
from hack.kube import CommandError, wait_for
from tests.e2e.conftest import Space


def _uid(space: Space, kind: str, name: str) -> str:
    uid: str = space.kube.get(kind, name, space.name)["metadata"]["uid"]
    return uid


def test_children_deleted_or_edited_by_hand_come_back(space: Space) -> None:
    space.apply_ready(space.deployment("chem"))
    kube = space.kube
    for kind, name in [
        ("statefulset", "demo-engine"),
        ("deployment", "demo-sandbox-chem"),
        ("service", "demo-engine"),
        ("networkpolicy", "demo-sandbox"),
        ("configmap", "demo-orchestrator"),
    ]:
        before = _uid(space, kind, name)
        kube.kubectl("delete", kind, name, "-n", space.name, "--wait=false")
        wait_for(f"a new {kind}/{name}", lambda kind=kind, name=name, before=before: _uid(space, kind, name) != before)
    patch = {"spec": {"ports": [{"port": 9200, "name": "http", "targetPort": 1}]}}
    kube.kubectl("patch", "service", "demo-engine", "-n", space.name, "--type=merge", "-p", json.dumps(patch))
    wait_for(
        "the service's port to be mended",
        lambda: kube.get("service", "demo-engine", space.name)["spec"]["ports"][0]["targetPort"] != 1,
    )
    space.wait_condition("Ready", "True")


def test_tenants_come_and_go_without_a_restart(space: Space, tmp_path: Path) -> None:
    space.apply_ready(space.deployment("chem"))
    others = {p["metadata"]["name"]: p["metadata"]["uid"] for p in space.pods()}

    space.apply_ready(space.deployment("chem", "bio"))
    after = {p["metadata"]["name"]: p["metadata"]["uid"] for p in space.pods()}
    assert {name: after.get(name) for name in others} == others

    truth = picture.write(tmp_path / "p.png", seed=7)
    path = space.put_image("bio", "p.png", (tmp_path / "p.png").read_bytes())
    with space.orchestrator() as http:
        chem = {"Authorization": f"Bearer {space.tenant_key('chem')}"}
        result = ask.ask(str(http.base_url), tmp_path / "p.png", path, api_key=space.tenant_key("bio"))
        assert truth.colour in result["answer"]
        body = {"messages": [{"type": "text", "text": "What is there?"}], "image_path_list": [path]}
        foreign = http.post("/process", json=body, headers=chem)
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "image_not_found")
        nobody = http.post("/process", json=body)
        assert nobody.status_code == 401

    space.apply_ready(space.deployment("chem"))
    wait_for("bio's sandbox to go", lambda: not space.pods("s1vl.io/tenant=bio"))
    with pytest.raises(CommandError, match="not found"):
        space.kube.get("secret", "demo-tenant-bio", space.name)
    files = space.kube.exec("deploy/demo-orchestrator", space.name, "ls", "/srv/s1vl/images/bio")
    assert "p.png" in files
    assert [t["name"] for t in space.cr()["status"]["tenants"]] == ["chem"]
    now = {p["metadata"]["name"]: p["metadata"]["uid"] for p in space.pods()}
    assert now == others


def test_deletion_leaves_only_claims(space: Space) -> None:
    space.apply_ready(space.deployment("chem"))
    space.kube.kubectl("delete", "s1vl", "demo", "-n", space.name, "--wait=true")
    kinds = "statefulset,deployment,replicaset,pod,controllerrevision,service,configmap,secret,serviceaccount"
    kinds += ",role,rolebinding,networkpolicy,pdb,hpa,job"

    def left() -> list[str]:
        found = space.kube.kubectl("get", kinds, "-n", space.name, "-o", "name").split()
        return [name for name in found if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]

    wait_for("everything but the claims to go", lambda: not left())
    claims = space.kube.kubectl("get", "pvc", "-n", space.name, "-o", "name").split()
    assert sorted(claims) == ["persistentvolumeclaim/demo-images", "persistentvolumeclaim/demo-model-cache"]


def test_an_invalid_cr_disturbs_nobody(space: Space) -> None:
    space.apply_ready(space.deployment("chem"))
    before = {p["metadata"]["uid"] for p in space.pods()}
    # What CEL cannot see: the API server takes any string as a quantity.
    bad = space.deployment("chem", cr="bad", images={"volume": {"size": "many"}})
    try:
        space.kube.apply(bad)
    except CommandError as refused:
        assert "size" in str(refused)
    else:
        condition = space.wait_condition("Ready", "False", "InvalidSpec", name="bad")
        assert "spec.images.volume.size" in condition["message"]
    space.wait_condition("Ready", "True")
    assert {p["metadata"]["uid"] for p in space.pods("s1vl.io/deployment=demo")} == before
