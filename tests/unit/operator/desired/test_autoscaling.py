"""Who scales what, on which metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from s1vl_operator.desired import autoscaling, desired_state
from tests.unit.operator.desired.conftest import CONTEXT, deployment, state

BY_HPA = {"max": 4, "waitingRequestsPerReplica": 5, "runningRequestsPerReplica": 32}
BY_KEDA = {**BY_HPA, "provider": "keda", "min": 2, "prometheusAddress": "http://prometheus.monitoring:9090"}


def test_the_engine_is_scaled_through_the_custom_resource() -> None:
    made = state({"engine": {"autoscaling": BY_HPA}})
    spec = made["HorizontalPodAutoscaler/demo-engine"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "s1vl.io/v1alpha1", "kind": "S1VLDeployment", "name": "demo"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    assert [(m["pods"]["metric"]["name"], m["pods"]["target"]) for m in spec["metrics"]] == [
        ("vllm:num_requests_waiting", {"type": "AverageValue", "averageValue": "5"}),
        ("vllm:num_requests_running", {"type": "AverageValue", "averageValue": "32"}),
    ]
    assert "ScaledObject/demo-engine" not in made


def test_the_number_of_engines_is_still_the_specs() -> None:
    made = state({"engine": {"replicas": 3, "autoscaling": BY_HPA}})
    assert made["StatefulSet/demo-engine"]["spec"]["replicas"] == 3


def test_keda_asks_prometheus_for_the_deployments_own_pods() -> None:
    made = state({"engine": {"autoscaling": BY_KEDA}}, namespace="lab")
    assert "HorizontalPodAutoscaler/demo-engine" not in made
    assert made["ScaledObject/demo-engine"]["apiVersion"] == "keda.sh/v1alpha1"
    spec = made["ScaledObject/demo-engine"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "s1vl.io/v1alpha1", "kind": "S1VLDeployment", "name": "demo"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 4)
    assert [trigger["metadata"] for trigger in spec["triggers"]] == [
        {
            "serverAddress": "http://prometheus.monitoring:9090",
            "query": 'sum(vllm:num_requests_waiting{namespace="lab",pod=~"demo-engine-[0-9]+"})',
            "threshold": "5",
            "ignoreNullValues": "false",
        },
        {
            "serverAddress": "http://prometheus.monitoring:9090",
            "query": 'sum(vllm:num_requests_running{namespace="lab",pod=~"demo-engine-[0-9]+"})',
            "threshold": "32",
            "ignoreNullValues": "false",
        },
    ]
    assert {(trigger["type"], trigger["metricType"]) for trigger in spec["triggers"]} == {
        ("prometheus", "AverageValue")
    }


def test_without_keda_nothing_of_it_is_made_and_it_is_said() -> None:
    without = replace(CONTEXT, keda=False)
    wanted = deployment({"engine": {"autoscaling": BY_KEDA}})
    kinds = {manifest["kind"] for manifest in desired_state(wanted, without)}
    assert not kinds & {"ScaledObject", "HorizontalPodAutoscaler"}
    assert "keda.sh/v1alpha1" in autoscaling.missing(wanted, without)
    assert not autoscaling.missing(wanted, CONTEXT)
    assert not autoscaling.missing(deployment({"engine": {"autoscaling": BY_HPA}}), without)


@pytest.mark.parametrize(("jobs", "names"), [({}, ["cpu"]), ({"jobsPerReplica": 12}, ["cpu", "s1vl_jobs_running"])])
def test_the_orchestrator_is_scaled_on_cpu_and_on_jobs(jobs: dict[str, Any], names: list[str]) -> None:
    scaling = {"min": 2, "max": 5, "targetCPUUtilizationPercentage": 60, **jobs}
    spec = state({"orchestrator": {"autoscaling": scaling}})["HorizontalPodAutoscaler/demo-orchestrator"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-orchestrator"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    cpu, *more = spec["metrics"]
    assert cpu["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert [cpu["resource"]["name"], *(one["pods"]["metric"]["name"] for one in more)] == names
    assert [one["pods"]["target"]["averageValue"] for one in more] == ["12"] * len(more)
