"""Autoscalers: of the orchestrator's Deployment, and of the engine by way of the S1VLDeployment's scale subresource.

The engine's never points at the StatefulSet: the operator alone writes that, from `spec.engine.replicas`.
"""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.engine import EngineAutoscalingSpec
from s1vl_operator.api.serving import AutoscalingSpec
from s1vl_operator.api.v1alpha1 import API_VERSION, KIND, S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.desired.context import Context, Manifest

KEDA = "keda.sh/v1alpha1"

JOBS = "s1vl_jobs_running"
"""In Prometheus, and by the same name as a metric of pods in the custom metrics API; vLLM's likewise."""


def manifests(deployment: S1VLDeployment, context: Context) -> list[Manifest]:
    """The autoscalers that are wanted and that the cluster can have."""
    engine, orchestrator = deployment.spec.engine.autoscaling, deployment.spec.orchestrator.autoscaling
    made = []
    if engine and not missing(deployment, context):
        made.append(_by_keda(deployment, engine) if engine.provider == "keda" else _by_hpa(deployment, engine))
    if orchestrator:
        made.append(_of_orchestrator(deployment, orchestrator))
    return made


def missing(deployment: S1VLDeployment, context: Context) -> str:
    """What keeps the engine's autoscaler from being made; "" when nothing does, or none is wanted."""
    autoscaling = deployment.spec.engine.autoscaling
    if autoscaling and autoscaling.provider == "keda" and not context.keda:
        return f"spec.engine.autoscaling.provider is keda, but the cluster does not serve {KEDA}"
    return ""


def _by_hpa(deployment: S1VLDeployment, autoscaling: EngineAutoscalingSpec) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": names.metadata(deployment, names.engine(deployment), "engine"),
        "spec": {
            "scaleTargetRef": _itself(deployment),
            "minReplicas": autoscaling.min,
            "maxReplicas": autoscaling.max,
            "metrics": [_per_pod(metric, target) for metric, target in _targets(autoscaling)],
        },
    }


def _by_keda(deployment: S1VLDeployment, autoscaling: EngineAutoscalingSpec) -> Manifest:
    pods = f'namespace="{deployment.namespace}",pod=~"{names.engine(deployment)}-[0-9]+"'
    triggers = [
        {
            "type": "prometheus",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": autoscaling.prometheus_address,
                "query": f"sum({metric}{{{pods}}})",
                "threshold": str(target),
                # An engine that Prometheus does not see is not an idle one.
                "ignoreNullValues": "false",
            },
        }
        for metric, target in _targets(autoscaling)
    ]
    return {
        "apiVersion": KEDA,
        "kind": "ScaledObject",
        "metadata": names.metadata(deployment, names.engine(deployment), "engine"),
        "spec": {
            "scaleTargetRef": _itself(deployment),
            "minReplicaCount": autoscaling.min,
            "maxReplicaCount": autoscaling.max,
            "triggers": triggers,
        },
    }


def _of_orchestrator(deployment: S1VLDeployment, autoscaling: AutoscalingSpec) -> Manifest:
    name = names.orchestrator(deployment)
    utilization = {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_utilization_percentage}
    metrics: list[Manifest] = [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}]
    if autoscaling.jobs_per_replica:
        metrics.append(_per_pod(JOBS, autoscaling.jobs_per_replica))
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": names.metadata(deployment, name, "orchestrator"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": autoscaling.min,
            "maxReplicas": autoscaling.max,
            "metrics": metrics,
        },
    }


def _itself(deployment: S1VLDeployment) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": KIND, "name": deployment.name}


def _targets(autoscaling: EngineAutoscalingSpec) -> list[tuple[str, int]]:
    """(metric, average of each engine pod to aim at)."""
    targets = (
        ("vllm:num_requests_waiting", autoscaling.waiting_requests_per_replica),
        ("vllm:num_requests_running", autoscaling.running_requests_per_replica),
    )
    return [(metric, target) for metric, target in targets if target]


def _per_pod(metric: str, target: int) -> dict[str, Any]:
    average = {"type": "AverageValue", "averageValue": str(target)}
    return {"type": "Pods", "pods": {"metric": {"name": metric}, "target": average}}
