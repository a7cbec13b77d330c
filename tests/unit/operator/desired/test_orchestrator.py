from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml

from s1vl_operator.desired import orchestrator
from tests.unit.operator.desired.conftest import container, deployment, pod, state

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
    assert orchestrator.config(deployment(spec)) == {
        "version": 1,
        "deployment": {"namespace": "lab", "name": "demo"},
        "engine": {
            "url": "http://demo-engine.lab.svc:9200",
            "model": "ScienceOne-AI/S1-VL-32B",
            "maxModelLen": 32768,
            "imagesPerPrompt": 15,
            "mediaRoot": "/srv/s1vl/images",
        },
        "images": {"root": "/srv/s1vl/images", "clientPath": "/data/images", "sandboxPath": "/mnt/data/images"},
        "sandbox": {"executionTimeoutSeconds": 30},
        "limits": {"maxTurns": 8, "deadlineSeconds": 270},
        "protocol": "s1vl",
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


def test_the_config_is_a_map_that_nothing_mounts() -> None:
    made = state()
    text = made["ConfigMap/demo-orchestrator"]["data"]["config.yaml"]
    assert yaml.safe_load(text) == orchestrator.config(deployment())
    assert text == orchestrator.config_text(deployment())
    assert container(made[NAME])["args"][:2] == ["--configmap", "lab/demo-orchestrator"]
    assert not [volume for volume in pod(made[NAME])["volumes"] if "configMap" in volume]


def test_rights() -> None:
    spec = {"tenants": [{"name": "chem"}, {"name": "bio", "apiKeySecretRef": {"name": "own"}}]}
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


def test_autoscaler() -> None:
    made = state({"orchestrator": {"autoscaling": {"min": 2, "max": 5, "targetCPUUtilizationPercentage": 60}}})
    spec = made["HorizontalPodAutoscaler/demo-orchestrator"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}


def test_service() -> None:
    service = {"type": "LoadBalancer", "annotations": {"a": "b"}}
    made = state({"orchestrator": {"port": 8000, "service": service}})["Service/demo-orchestrator"]
    assert made["spec"]["type"] == "LoadBalancer"
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert [port["port"] for port in made["spec"]["ports"]] == [8000], "the management port is nobody's"


def test_no_job_is_cut_short() -> None:
    made = state({"orchestrator": {"deadlineSeconds": 100}})[NAME]
    assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert (
        pod(made)["terminationGracePeriodSeconds"] > 100 + container(made)["lifecycle"]["preStop"]["sleep"]["seconds"]
    )


def test_ports_and_probes() -> None:
    made = container(state()[NAME])
    assert {port["name"]: port["containerPort"] for port in made["ports"]} == {"http": 10044, "management": 10045}
    assert made["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("name", sorted(file.name[:-5] for file in files("s1vl_orchestrator.protocol").glob("*.yaml")))
def test_every_protocol_of_the_orchestrator_can_be_chosen(name: str) -> None:
    chosen = deployment({"orchestrator": {"protocol": name}, "tenants": [{"name": "chem"}]})
    assert orchestrator.config(chosen)["protocol"] == name
