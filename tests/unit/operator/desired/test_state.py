from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from s1vl_operator.api.v1alpha1 import S1VLDeployment, parse
from s1vl_operator.desired import SecretValue, desired_secrets, desired_state, service_url
from tests.unit.operator.api.corpus import GOOD, Resource
from tests.unit.operator.desired.conftest import CONTEXT, deployment, pod, state

ROOT = Path(__file__).parents[4]
GOLDEN = Path(__file__).parent / "golden" / "quickstart.yaml"


def parsed(good: Resource) -> S1VLDeployment:
    return parse({**good, "metadata": {**good["metadata"], "uid": "0f0f"}})


def test_golden() -> None:
    """What the quickstart becomes, in full, for a reviewer to read; UPDATE_GOLDEN=1 writes it anew."""
    manifest = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    manifest["metadata"] |= {"namespace": "default", "uid": "00000000-0000-0000-0000-000000000000"}
    cr = parse(manifest)
    made = [*(secret.manifest for secret in desired_secrets(cr, CONTEXT)), *desired_state(cr, CONTEXT)]
    # By way of JSON, so that what is the same twice is written twice.
    text = "---\n".join(yaml.safe_dump(json.loads(json.dumps(m)), sort_keys=False, width=120) for m in made)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "run with UPDATE_GOLDEN=1 and read the difference"


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_every_object_is_labelled_owned_and_known_by_its_name(good: Resource) -> None:
    cr = parsed(good)
    made = desired_state(cr, CONTEXT)
    made += [secret.manifest for secret in desired_secrets(cr, CONTEXT)]
    seen = [(m["kind"], m["metadata"]["name"]) for m in made]
    assert len(seen) == len(set(seen))
    for manifest in made:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == cr.namespace
        assert metadata["labels"]["s1vl.io/deployment"] == cr.name
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "s1vl-operator"
        owners = metadata.get("ownerReferences", [])
        if manifest["kind"] == "PersistentVolumeClaim":
            assert owners == [], "claims outlive the deployment"
        else:
            assert [(o["uid"], o["controller"], o["kind"]) for o in owners] == [("0f0f", True, "S1VLDeployment")]
    assert desired_state(cr, CONTEXT) == desired_state(parsed(good), CONTEXT)
    json.dumps(made)


def test_no_secret_is_part_of_the_state() -> None:
    assert not [name for name in state() if name.startswith("Secret/")]


def test_secrets() -> None:
    spec = {"tenants": [{"name": "chem"}, {"name": "bio", "apiKeySecretRef": {"name": "own"}}]}
    random, digest = SecretValue("random_key"), SecretValue("sha256_of", "apiKey")
    assert {s.name: s.keys for s in desired_secrets(deployment(spec), CONTEXT)} == {
        "demo-orchestrator": {"cacheSalt": random},
        "demo-sandbox-chem": {"apiKey": random, "apiKeySha256": digest},
        "demo-tenant-chem": {"apiKey": random},
        "demo-sandbox-bio": {"apiKey": random, "apiKeySha256": digest},
    }
    for secret in desired_secrets(deployment(spec), CONTEXT):
        assert not {"data", "stringData"} & secret.manifest.keys()
        assert secret.labels["s1vl.io/deployment"] == "demo"


def test_a_new_tenant_changes_nothing_that_runs() -> None:
    before = state({"tenants": [{"name": "chem"}]})
    after = state({"tenants": [{"name": "bio"}, {"name": "chem"}]})
    assert {name for name in before if after[name] != before[name]} == {
        "ConfigMap/demo-orchestrator",
        "Role/demo-orchestrator",
    }
    assert after.keys() - before.keys() == {"Service/demo-sandbox-bio", "Deployment/demo-sandbox-bio"}


def test_what_a_pod_needs_comes_before_it() -> None:
    kinds = [name.partition("/")[0] for name in state()]
    first_pod = kinds.index("StatefulSet")
    for kind in ("PersistentVolumeClaim", "NetworkPolicy"):
        assert max(i for i, k in enumerate(kinds) if k == kind) < first_pod
    for kind in ("ServiceAccount", "Role", "RoleBinding", "ConfigMap"):
        assert kinds.index(kind) < list(state()).index("Deployment/demo-orchestrator")


RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


@pytest.mark.parametrize(
    "spec", [{}, {"engine": {"gpus": 1}}, {"model": {"source": {"existingClaim": {"name": "w"}}}}], ids=str
)
def test_every_pod_passes_pod_security_restricted(spec: dict[str, Any]) -> None:
    pods = [pod(m) for m in state(spec).values() if "template" in m.get("spec", {})]
    assert len(pods) == 3
    for found in pods:
        assert found["securityContext"]["runAsNonRoot"] is True
        assert found["securityContext"]["runAsUser"] == 10001
        assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & found.keys()
        assert all(volume.keys() - {"name"} <= RESTRICTED_VOLUMES for volume in found["volumes"])
        for container in [*found["containers"], *found.get("initContainers", [])]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert rights.get("runAsNonRoot", True)
            assert rights.get("runAsUser", 10001)
            assert rights.keys() <= {
                *("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
                *("runAsNonRoot", "runAsUser", "runAsGroup"),
            }
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in found["volumes"]}


def test_claims() -> None:
    spec = {
        "images": {"volume": {"size": "1Ti", "storageClassName": "nfs"}},
        "model": {"cache": {"size": "300Gi"}},
    }
    made = state(spec)
    assert made["PersistentVolumeClaim/demo-images"]["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Ti"}},
        "storageClassName": "nfs",
    }
    assert "storageClassName" not in made["PersistentVolumeClaim/demo-model-cache"]["spec"]
    assert "PersistentVolumeClaim/demo-images" not in state({"images": {"volume": {"existingClaim": "mine"}}})


def test_service_url() -> None:
    assert service_url(deployment({"orchestrator": {"port": 8000}})) == "http://demo-orchestrator.lab.svc:8000"
