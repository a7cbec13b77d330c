from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from s1vl_operator.desired import desired_state
from tests.unit.operator.desired.conftest import CONTEXT, container, deployment, env, pod, state

NAME = "Deployment/demo-sandbox-chem"


def sandbox(spec: dict[str, Any] | None = None, own: dict[str, Any] | None = None) -> dict[str, Any]:
    return state({**(spec or {}), "tenants": [{"name": "chem", "sandbox": own or {}}]})[NAME]


def test_shape() -> None:
    made = state()
    spec = made[NAME]["spec"]
    assert spec["replicas"] == 1
    assert "PodDisruptionBudget/demo-sandbox-chem" not in made
    assert made["Service/demo-sandbox-chem"]["spec"]["clusterIP"] == "None"
    assert made[NAME]["metadata"]["labels"]["s1vl.io/tenant"] == "chem"
    assert spec["selector"]["matchLabels"]["s1vl.io/tenant"] == "chem"


@pytest.mark.parametrize(
    ("everybody", "own", "replicas"),
    [({"replicas": 2}, {}, 2), ({"replicas": 2}, {"replicas": 1}, 1), ({}, {"replicas": 3}, 3)],
)
def test_replicas(everybody: dict[str, Any], own: dict[str, Any], replicas: int) -> None:
    made = state({"sandbox": everybody, "tenants": [{"name": "chem", "sandbox": own}, {"name": "bio"}]})
    assert made[NAME]["spec"]["replicas"] == replicas
    assert made["Deployment/demo-sandbox-bio"]["spec"]["replicas"] == everybody.get("replicas", 1)
    budget = made.get("PodDisruptionBudget/demo-sandbox-chem")
    assert (budget is not None) is (replicas > 1)
    if budget:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"] == made[NAME]["spec"]["selector"]


def test_a_sandbox_that_is_asleep_has_no_pods_and_all_the_rest() -> None:
    one = deployment(
        {"sandbox": {"replicas": 2, "idleTimeoutSeconds": 60}, "tenants": [{"name": "chem"}, {"name": "bio"}]}
    )
    awake, asleep = (
        {
            f"{m['kind']}/{m['metadata']['name']}": m
            for m in desired_state(one, replace(CONTEXT, asleep=frozenset(names)))
        }
        for names in ((), ("chem",))
    )
    assert awake["Lease/demo-tenant-chem"].keys() == {"apiVersion", "kind", "metadata"}, "its content is not ours"
    assert {name for name in awake | asleep if awake.get(name) != asleep.get(name)} == {NAME}
    assert (awake[NAME]["spec"].pop("replicas"), asleep[NAME]["spec"].pop("replicas")) == (2, 0)
    assert awake[NAME] == asleep[NAME]


def test_pods_are_others_with_another_key() -> None:
    def annotations(**uids: str) -> dict[str, Any]:
        made = desired_state(
            deployment(), replace(CONTEXT, secret_uids={name.replace("_", "-"): uid for name, uid in uids.items()})
        )
        templates = {m["metadata"]["name"]: m["spec"]["template"] for m in made if "template" in m.get("spec", {})}
        return {
            name: found["metadata"]["annotations"]
            for name, found in templates.items()
            if "annotations" in found["metadata"]
        }

    assert annotations() == {}
    known = annotations(demo_sandbox_chem="1", demo_tenant_chem="2", demo_orchestrator="3")
    assert known == {"demo-sandbox-chem": {"s1vl.io/api-key-secret-uid": "1"}}


def test_no_job_is_cut_short() -> None:
    """The replacement comes first, and what goes may take as long as the longest job."""
    made = sandbox({"orchestrator": {"deadlineSeconds": 100}})
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod(made)["terminationGracePeriodSeconds"] == 130


def test_no_way_to_the_cluster() -> None:
    spec = pod(sandbox())
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_the_model_s_code_shares_neither_user_nor_processes_with_the_server() -> None:
    found = pod(sandbox())
    assert [c["name"] for c in found["containers"]] == ["sandbox", "kernels"]
    assert "shareProcessNamespace" not in found
    server, kernels = found["containers"]
    assert (server["command"], kernels["command"]) == (["s1vl-sandbox", "serve"], ["s1vl-sandbox", "kernels"])
    assert server["image"] == kernels["image"]
    assert (server["securityContext"]["runAsUser"], server["securityContext"]["runAsGroup"]) == (10002, 10001)
    assert "runAsUser" not in kernels["securityContext"]
    assert found["securityContext"]["runAsUser"] == found["securityContext"]["fsGroup"] == 10001
    assert not {"ports", "readinessProbe", "livenessProbe", "startupProbe"} & kernels.keys()


def test_what_server_and_kernels_share() -> None:
    found = pod(sandbox())
    mounts = [{m["mountPath"]: m["name"] for m in c["volumeMounts"]} for c in found["containers"]]
    assert mounts[0] == {"/mnt/data/images": "images", "/run/s1vl": "run", "/tmp": "tmp"}
    assert mounts[1] == {"/mnt/data/images": "images", "/run/s1vl": "run", "/tmp": "kernels-tmp"}
    sizes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in found["volumes"] if "emptyDir" in v}
    assert sizes == {"tmp": "1Gi", "kernels-tmp": "1Gi", "run": "2Gi"}
    for one in found["containers"]:
        variables = env(one)
        assert variables["S1VL_SANDBOX_STATE_DIR"] == "/run/s1vl"
        assert variables["S1VL_SANDBOX_KERNELS"] == "separate"
        assert variables["S1VL_SANDBOX_WORKSPACE"] == "/mnt/data/images"


def test_only_the_keys_digest_enters_the_pod_and_only_the_servers_container() -> None:
    digest = {"secretKeyRef": {"name": "demo-sandbox-chem", "key": "apiKeySha256"}}
    server, kernels = (env(container(sandbox(), name)) for name in ("sandbox", "kernels"))
    assert server["S1VL_SANDBOX_API_KEY_SHA256"] == digest
    assert [v for v in [*server.values(), *kernels.values()] if isinstance(v, dict)] == [digest]


@pytest.mark.parametrize(
    ("spec", "own", "name", "value"),
    [
        ({}, {}, "S1VL_SANDBOX_MAX_SESSIONS", "8"),
        ({"sandbox": {"maxSessions": 4}}, {}, "S1VL_SANDBOX_MAX_SESSIONS", "4"),
        ({"sandbox": {"maxSessions": 4}}, {"maxSessions": 2}, "S1VL_SANDBOX_MAX_SESSIONS", "2"),
        ({"sandbox": {"port": 8181}}, {}, "S1VL_SANDBOX_PORT", "8181"),
        ({"images": {"sandboxPath": "/work"}}, {}, "S1VL_SANDBOX_WORKSPACE", "/work"),
        ({}, {}, "HOME", "/tmp"),
    ],
)
def test_settings(spec: dict[str, Any], own: dict[str, Any], name: str, value: str) -> None:
    assert env(container(sandbox(spec, own)))[name] == value


@pytest.mark.parametrize(
    ("everybody", "own", "strict"),
    [
        ({}, {}, False),
        ({"requireIsolation": "strict"}, {}, True),
        ({"requireIsolation": "strict"}, {"requireIsolation": "bestEffort"}, False),
        ({}, {"requireIsolation": "strict"}, True),
    ],
)
def test_required_isolation(everybody: dict[str, Any], own: dict[str, Any], strict: bool) -> None:
    for one in pod(sandbox({"sandbox": everybody}, own))["containers"]:
        assert env(one).get("S1VL_SANDBOX_REQUIRE_ISOLATION") == ("strict" if strict else None)


@pytest.mark.parametrize(
    ("spec", "own", "image"),
    [
        ({}, {}, "localhost/s1vl-sandbox:1"),
        ({"sandbox": {"image": "a"}}, {}, "a"),
        ({"sandbox": {"image": "a"}}, {"image": "b"}, "b"),
    ],
)
def test_image(spec: dict[str, Any], own: dict[str, Any], image: str) -> None:
    made = pod(sandbox(spec, own))
    assert {c["image"] for c in [*made["containers"], *made["initContainers"]]} == {image}


def test_resources_and_runtime_class_of_a_tenant() -> None:
    spec = {"sandbox": {"runtimeClassName": "gvisor"}}
    assert container(sandbox(), "kernels")["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": "2Gi"},
    }
    own = {"resources": {"limits": {"memory": "8Gi"}}, "runtimeClassName": "kata"}
    made = sandbox(spec, own)
    assert container(made, "kernels")["resources"] == {"limits": {"memory": "8Gi"}}
    assert container(made, "sandbox")["resources"] == container(sandbox(), "sandbox")["resources"]
    assert pod(made)["runtimeClassName"] == "kata"
    assert pod(sandbox(spec))["runtimeClassName"] == "gvisor"
    assert "runtimeClassName" not in pod(sandbox())


def test_readiness_runs_code() -> None:
    made = container(sandbox())
    assert made["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert made["readinessProbe"]["periodSeconds"] == 2
    assert made["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_storage_init_is_root_only_on_a_hosts_folder() -> None:
    plain = pod(sandbox())["initContainers"][0]["securityContext"]
    assert "runAsUser" not in plain
    on_host = pod(sandbox({"images": {"volume": {"hostPath": "/data"}}}))
    init = on_host["initContainers"][0]["securityContext"]
    assert init["runAsUser"] == 0
    assert init["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]}
    assert init["allowPrivilegeEscalation"] is False
    assert on_host["containers"] == pod(sandbox())["containers"]


def test_a_tenants_patch_comes_after_everybodys() -> None:
    everybody = {"podTemplate": {"spec": {"priorityClassName": "low", "nodeSelector": {"a": "b"}}}}
    own = {"podTemplate": {"spec": {"priorityClassName": "high"}}}
    made = pod(sandbox({"sandbox": everybody}, own))
    assert (made["priorityClassName"], made["nodeSelector"]) == ("high", {"a": "b"})


def test_a_wrong_mount_by_a_patch() -> None:
    mount = {"mountPath": "/mnt/data/images", "name": "images", "subPath": "elsewhere"}
    own = {"podTemplate": {"spec": {"containers": [{"name": "kernels", "volumeMounts": [mount]}]}}}
    made = sandbox(own=own)
    assert container(made, "kernels")["volumeMounts"][0] == mount
    assert container(made, "sandbox") == container(sandbox(), "sandbox")
