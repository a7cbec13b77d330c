"""The chart, rendered by the real helm: what it refuses, what it installs, and how wide its rights are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster.build import ensure_program
from s1vl_operator.informer import STOP_SECONDS
from s1vl_operator.leader import RELEASE_SECONDS
from s1vl_operator.term import GRACE_SECONDS

CHART = Path(__file__).parents[3] / "charts/s1vl"


@pytest.fixture(scope="session")
def helm() -> Path:
    return ensure_program("helm")


def run(helm: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(helm), *args], capture_output=True, text=True, timeout=60, check=False)


def render(helm: Path, *sets: str) -> list[dict[str, Any]]:
    args = [word for value in sets for word in ("--set", value)]
    done = run(helm, "template", "s1vl", str(CHART), "-n", "s1vl-system", *args)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [d for d in documents if d["kind"] == kind]


def test_lint_is_clean(helm: Path) -> None:
    done = run(helm, "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        "operator.replica=2",
        "images.pullPolicy=Sometimes",
        "operator.replicas=0",
        "operator.watchNamespaces={Not_A_Name}",
    ],
)
def test_wrong_values_are_refused(helm: Path, wrong: str) -> None:
    done = run(helm, "template", "s1vl", str(CHART), "--set", wrong)
    assert done.returncode != 0
    assert wrong.split("=", maxsplit=1)[0].split(".")[1] in done.stderr


def test_every_value_is_in_the_schema(helm: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    def check(value: Any, node: dict[str, Any], path: str) -> None:
        assert node.get("description") or node.get("properties"), path
        if isinstance(value, dict) and "properties" in node:
            assert node["additionalProperties"] is False, path
            for key, inner in value.items():
                check(inner, node["properties"][key], f"{path}.{key}")

    for key, inner in values.items():
        check(inner, schema["properties"][key], key)


def test_crd_is_kept_or_left_out(helm: Path) -> None:
    (crd,) = of_kind(render(helm), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (loose,) = of_kind(render(helm, "crds.keep=false"), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in loose["metadata"].get("annotations", {})
    assert of_kind(render(helm, "crds.enabled=false"), "CustomResourceDefinition") == []


def test_rights_are_least(helm: Path) -> None:
    for document in render(helm):
        for rule in document.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], document["metadata"]["name"]
            if "secrets" in rule["resources"]:
                assert "list" not in rule["verbs"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_watched_namespaces_need_no_cluster_role(helm: Path) -> None:
    documents = render(helm, "operator.watchNamespaces={red,blue}", "rbac.aggregate=false")
    assert of_kind(documents, "ClusterRole") == []
    assert of_kind(documents, "ClusterRoleBinding") == []
    assert {"red", "blue"} <= {d["metadata"]["namespace"] for d in of_kind(documents, "Role")}
    (deployment,) = of_kind(documents, "Deployment")
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["S1VL_OPERATOR_WATCH_NAMESPACES"] == "red,blue"


def test_operator_pod_is_restricted(helm: Path) -> None:
    (deployment,) = of_kind(render(helm), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_several_replicas_get_a_disruption_budget(helm: Path) -> None:
    assert of_kind(render(helm), "PodDisruptionBudget") == []
    assert len(of_kind(render(helm, "operator.replicas=2"), "PodDisruptionBudget")) == 1


def test_an_upgrade_leaves_no_gap(helm: Path) -> None:
    [deployment] = of_kind(render(helm, "operator.replicas=2"), "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["spec"]["template"]["spec"]
    [spread] = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
    # Runs are finished, the watching is stopped and the Lease is handed over in this order.
    assert pod["terminationGracePeriodSeconds"] > GRACE_SECONDS + STOP_SECONDS + RELEASE_SECONDS
