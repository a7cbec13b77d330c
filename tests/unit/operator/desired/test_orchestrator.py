from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from s1vl_operator.desired import PodAddress, orchestrator
from s1vl_orchestrator.config import parse_config
from tests.unit.operator.desired.conftest import CONTEXT, container, deployment, pod, state

NAME = "Deployment/demo-orchestrator"


def test_config() -> None:
    spec = {
        "orchestrator": {"anonymousTenant": "chem"},
        "tenants": [
            {"name": "chem"},
            {
                "name": "bio",
                "subPath": "d/bio",
                "apiKeySecretRef": {"name": "own", "key": "k"},
                "limits": {"queuedRequests": 0},
            },
        ],
    }
    assert orchestrator.config(deployment(spec), "thyme") == {
        "version": 1,
        "deployment": {"namespace": "lab", "name": "demo"},
        "engine": {
            "url": "http://demo-engine.lab.svc:9200",
            "podsHost": "demo-engine-pods.lab.svc",
            "model": "ScienceOne-AI/S1-VL-32B",
            "maxModelLen": 32768,
            "imagesPerPrompt": 15,
            "mediaRoot": "/srv/s1vl/images",
        },
        "images": {
            "root": "/srv/s1vl/images",
            "clientPath": "/data/images",
            "sandboxPath": "/mnt/data/images",
            "retention": {"maxAgeSeconds": 604800, "maxBytesPerTenant": 0},
        },
        "sandbox": {"profile": "s1vl", "executionTimeoutSeconds": 30},
        "limits": {"maxTurns": 8, "deadlineSeconds": 270},
        "protocol": "thyme",
        "anonymousTenant": "chem",
        "cacheSaltSecret": {"name": "demo-orchestrator", "key": "cacheSalt"},
        "tenants": [
            {
                "name": "chem",
                "subPath": "chem",
                "apiKeySecret": {"name": "demo-tenant-chem", "key": "apiKey"},
                "sandbox": {
                    "url": "http://demo-sandbox-chem.lab.svc:8080",
                    "apiKeySecret": {"name": "demo-sandbox-chem", "key": "apiKey"},
                },
                "limits": {"concurrentRequests": 4, "queuedRequests": 16, "requestsPerMinute": 0},
            },
            {
                "name": "bio",
                "subPath": "d/bio",
                "apiKeySecret": {"name": "own", "key": "k"},
                "sandbox": {
                    "url": "http://demo-sandbox-bio.lab.svc:8080",
                    "apiKeySecret": {"name": "demo-sandbox-bio", "key": "apiKey"},
                },
                "limits": {"concurrentRequests": 4, "queuedRequests": 0, "requestsPerMinute": 0},
            },
        ],
    }


def test_the_config_of_a_tenant_whose_sandbox_sleeps() -> None:
    tenants = [{"name": "chem"}, {"name": "bio", "sandbox": {"idleTimeoutSeconds": 0}}]
    made = orchestrator.config(deployment({"sandbox": {"idleTimeoutSeconds": 60}, "tenants": tenants}), "s1vl")
    chem, bio = (tenant["sandbox"] for tenant in made["tenants"])
    assert (chem["lease"], chem["idleTimeoutSeconds"]) == ("demo-tenant-chem", 60)
    assert not {"lease", "idleTimeoutSeconds"} & bio.keys()


def test_the_config_is_a_map_that_nothing_mounts() -> None:
    made = state()
    text = made["ConfigMap/demo-orchestrator"]["data"]["config.yaml"]
    assert yaml.safe_load(text) == orchestrator.config(deployment(), "s1vl")
    assert text == orchestrator.config_text(deployment(), "s1vl")
    assert container(made[NAME])["args"][:2] == ["--configmap", "lab/demo-orchestrator"]
    assert not [volume for volume in pod(made[NAME])["volumes"] if "configMap" in volume]


def test_pods_are_told_beside_the_configuration() -> None:
    chem = (PodAddress("demo-sandbox-chem-a", "10.244.0.5"), PodAddress("demo-sandbox-chem-b", "fd00::1"))
    context = replace(CONTEXT, hung_engines=("10.244.0.9",), sandbox_pods={"chem": chem, "left": chem})
    made = orchestrator.manifests(deployment({"tenants": [{"name": "chem"}, {"name": "bio"}]}), context)
    (data,) = (manifest["data"] for manifest in made if manifest["kind"] == "ConfigMap")
    assert data["pods.yaml"] == (
        "version: 1\n"
        "engine:\n"
        "  hung: [10.244.0.9]\n"
        "sandboxes:\n"
        "  chem:\n"
        "  - {name: demo-sandbox-chem-a, address: 10.244.0.5}\n"
        "  - {name: demo-sandbox-chem-b, address: 'fd00::1'}\n"
        "  bio: []\n"
    )


def test_rights() -> None:
    spec: dict[str, Any] = {"tenants": [{"name": "chem"}, {"name": "bio", "apiKeySecretRef": {"name": "own"}}]}
    made = state(spec)
    verbs = ["get"]
    assert made["Role/demo-orchestrator"]["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["demo-orchestrator"], "verbs": verbs},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["demo-orchestrator", "demo-sandbox-bio", "demo-sandbox-chem", "demo-tenant-chem", "own"],
            "verbs": verbs,
        },
    ]
    spec["tenants"][1] |= {"sandbox": {"idleTimeoutSeconds": 60}}
    assert state(spec)["Role/demo-orchestrator"]["rules"][2:] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["demo-tenant-bio"],
            "verbs": ["get", "patch"],
        }
    ]
    subject = {"kind": "ServiceAccount", "name": "demo-orchestrator", "namespace": "lab"}
    assert made["RoleBinding/demo-orchestrator"]["subjects"] == [subject]
    assert pod(made[NAME])["serviceAccountName"] == "demo-orchestrator"
    assert pod(made[NAME])["automountServiceAccountToken"] is True


@pytest.mark.parametrize(
    ("spec", "replicas", "autoscaler", "budget"),
    [
        ({}, 1, False, False),
        ({"replicas": 0}, 0, False, False),
        ({"replicas": 2}, 2, False, True),
        ({"autoscaling": {"max": 3}}, None, True, False),
        ({"autoscaling": {"min": 2, "max": 3}}, None, True, True),
    ],
)
def test_replicas(spec: dict[str, Any], replicas: int | None, autoscaler: bool, budget: bool) -> None:
    made = state({"orchestrator": spec})
    assert made[NAME]["spec"].get("replicas") == replicas
    assert ("HorizontalPodAutoscaler/demo-orchestrator" in made) is autoscaler
    assert ("PodDisruptionBudget/demo-orchestrator" in made) is budget


def test_service() -> None:
    service = {"type": "LoadBalancer", "annotations": {"a": "b"}}
    made = state({"orchestrator": {"port": 8000, "service": service}})["Service/demo-orchestrator"]
    assert made["spec"]["type"] == "LoadBalancer"
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert [port["port"] for port in made["spec"]["ports"]] == [8000], "the management port is nobody's"


def test_no_job_is_cut_short() -> None:
    made = state({"orchestrator": {"deadlineSeconds": 100}})[NAME]
    assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    # New requests for 5 s more, jobs until their deadline, 20 s for what is late, 5 s to tidy up, 10 s to close.
    assert pod(made)["terminationGracePeriodSeconds"] > 5 + 100 + 20 + 5 + 10


def test_ports_and_probes() -> None:
    made = container(state()[NAME])
    assert {port["name"]: port["containerPort"] for port in made["ports"]} == {"http": 10044, "management": 10045}
    assert made["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize(
    ("retention", "seconds", "size"),
    [
        ({}, 604800, 0),
        ({"days": 0}, 0, 0),
        ({"days": 30, "sizePerTenant": "1.5Gi"}, 2592000, 1610612736),
        ({"sizePerTenant": "1e99"}, 604800, 2**63 - 1),
    ],
)
def test_how_long_pictures_are_kept(retention: dict[str, Any], seconds: int, size: int) -> None:
    made = orchestrator.config(deployment({"images": {"retention": retention}}), "s1vl")["images"]["retention"]
    assert made == {"maxAgeSeconds": seconds, "maxBytesPerTenant": size}


def test_a_change_of_what_is_kept_or_of_the_protocol_restarts_nothing() -> None:
    other = {"images": {"retention": {"days": 1}}, "orchestrator": {"protocolRef": {"name": "mine"}}}
    before, after = state(), state(other, protocol="name: mine")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"ConfigMap/demo-orchestrator"}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"sandbox": {"profile": "aio", "image": "aio"}},
        {"images": {"retention": {"days": 3, "sizePerTenant": "1Gi"}}, "engine": {"replicas": 3}},
    ],
)
def test_the_orchestrator_takes_it(spec: dict[str, Any]) -> None:
    made = deployment(spec)
    taken = parse_config(orchestrator.config_text(made, "s1vl"))
    assert taken.sandbox.profile == made.spec.sandbox.profile
    assert taken.engine.pods_host == "demo-engine-pods.lab.svc"
    assert taken.images.retention.max_age_seconds == made.spec.images.retention.days * 86400
