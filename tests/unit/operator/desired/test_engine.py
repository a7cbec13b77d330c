from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.desired.conftest import container, env, pod, state

NAME = "StatefulSet/demo-engine"


def engine(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return state(spec)[NAME]


def test_shape() -> None:
    spec = engine({"engine": {"replicas": 3}})["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"], spec["serviceName"]) == (3, "Parallel", "demo-engine-pods")
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_services() -> None:
    made = state({"engine": {"port": 9300}})
    headless, client = made["Service/demo-engine-pods"]["spec"], made["Service/demo-engine"]["spec"]
    assert headless["clusterIP"] == "None"
    assert "clusterIP" not in client
    assert client["ports"] == [{"name": "http", "port": 9300, "targetPort": "http", "protocol": "TCP"}]
    assert container(made[NAME])["ports"][0] == {"name": "http", "containerPort": 9300, "protocol": "TCP"}


@pytest.mark.parametrize(("gpus", "shared_memory"), [(1, False), (2, True), (8, True)])
def test_gpus(gpus: int, shared_memory: bool) -> None:
    made = engine({"engine": {"gpus": gpus, "gpuResource": "amd.com/gpu", "shmSize": "5Gi"}})
    assert container(made)["resources"] == {"limits": {"amd.com/gpu": str(gpus)}}
    shm = [v for v in pod(made)["volumes"] if v["name"] == "shm"]
    assert shm == ([{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "5Gi"}}] if shared_memory else [])
    assert any(m["mountPath"] == "/dev/shm" for m in container(made)["volumeMounts"]) is shared_memory


def test_resources_keep_the_gpus() -> None:
    resources = {"requests": {"cpu": 8}, "limits": {"memory": "200Gi"}}
    assert container(engine({"engine": {"resources": resources}}))["resources"] == {
        "requests": {"cpu": "8"},
        "limits": {"memory": "200Gi", "nvidia.com/gpu": "4"},
    }


def test_probes() -> None:
    made = container(engine({"engine": {"startupTimeoutSeconds": 601}}))
    startup = made["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 602
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert made[probe]["httpGet"] == {"path": "/health", "port": "http"}
        assert made[probe]["timeoutSeconds"] == 5


def test_drain() -> None:
    made = engine({"engine": {"drainTimeoutSeconds": 60, "version": "0.18.0"}})
    before = container(made)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before == 15
    assert pod(made)["terminationGracePeriodSeconds"] > before + 60


@pytest.mark.parametrize(
    ("source", "expected", "absent"),
    [
        ({"huggingFace": {}}, {"HF_HOME": "/models/hf"}, {"HF_TOKEN", "HF_HUB_OFFLINE"}),
        (
            {"huggingFace": {"tokenSecretRef": {"name": "hf"}}},
            {"HF_TOKEN": {"secretKeyRef": {"name": "hf", "key": "token"}}},
            {"HF_HUB_OFFLINE"},
        ),
        ({"existingClaim": {"name": "w"}}, {"HF_HUB_OFFLINE": "1"}, {"HF_TOKEN"}),
    ],
)
def test_source(source: dict[str, Any], expected: dict[str, Any], absent: set[str]) -> None:
    made = engine({"model": {"source": source}})
    variables = env(container(made))
    assert expected.items() <= variables.items()
    assert not absent & variables.keys()
    weights = [m for m in container(made)["volumeMounts"] if m["name"] == "weights"]
    assert weights == (
        [{"name": "weights", "mountPath": "/weights", "readOnly": True}] if "existingClaim" in source else []
    )


@pytest.mark.parametrize(
    ("cache", "claim"), [({"size": "1Gi"}, "demo-model-cache"), ({"existingClaim": "models"}, "models")]
)
def test_cache(cache: dict[str, Any], claim: str) -> None:
    made = engine({"model": {"cache": cache}})
    (volume,) = [v for v in pod(made)["volumes"] if v["name"] == "model-cache"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert ("PersistentVolumeClaim/demo-model-cache" in state({"model": {"cache": cache}})) is ("size" in cache)


def test_everything_that_is_written_goes_to_a_volume() -> None:
    made = container(engine())
    writable = [m["mountPath"] for m in made["volumeMounts"] if not m.get("readOnly")]
    folders = [value for value in env(made).values() if isinstance(value, str) and value.startswith("/")]
    assert len(folders) >= 5
    assert all(any(f"{folder}/".startswith(f"{root}/") for root in writable) for folder in folders)


def test_the_users_environment_wins() -> None:
    own = [{"name": "HF_HOME", "value": "/elsewhere"}, {"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]
    listed = container(engine({"engine": {"env": own}}))["env"]
    assert [item["value"] for item in listed if item["name"] == "HF_HOME"] == ["/elsewhere"]
    assert listed[-1] == own[1]


def test_placement() -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists"}
    spec = {"nodeSelector": {"a": "b"}, "tolerations": [toleration], "affinity": {"nodeAffinity": {}}}
    made = pod(engine({"engine": spec}))
    assert {key: made[key] for key in spec} == spec
    assert not spec.keys() & pod(engine()).keys()


@pytest.mark.parametrize(("replicas", "there"), [(0, False), (1, False), (2, True)])
def test_disruption_budget(replicas: int, there: bool) -> None:
    made = state({"engine": {"replicas": replicas}})
    assert ("PodDisruptionBudget/demo-engine" in made) is there
    if there:
        assert made["PodDisruptionBudget/demo-engine"]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_users_last_word() -> None:
    patch = {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [{"name": "vllm", "tty": True}]}}
    template = engine({"engine": {"podTemplate": patch}})["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["spec"]["containers"][0]["tty"] is True
    assert template["spec"]["containers"][0]["command"][0] == "vllm"
