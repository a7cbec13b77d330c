"""The stock AIO image as a sandbox: what can be checked without running it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from s1vl_operator.desired import desired_state
from tests.unit.operator.desired.conftest import CONTEXT, container, deployment, env, pod, state

NAME = "Deployment/demo-sandbox-chem"
AIO: dict[str, Any] = {"profile": "aio", "image": "aio@sha256:0"}
BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


def sandbox(spec: dict[str, Any] | None = None, own: dict[str, Any] | None = None, **images: Any) -> dict[str, Any]:
    more = {"images": images} if images else {}
    return state({"sandbox": {**AIO, **(spec or {})}, **more, "tenants": [{"name": "chem", "sandbox": own or {}}]})[
        NAME
    ]


def test_it_starts_as_root_with_no_more_than_baseline_allows() -> None:
    found = pod(sandbox())
    (one,) = found["containers"]
    assert one["name"] == "sandbox"
    assert (found["securityContext"]["runAsUser"], found["securityContext"]["runAsNonRoot"]) == (0, False)
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = one["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert {"SETUID", "SETGID", "CHOWN"} <= set(rights["capabilities"]["add"]) <= BASELINE_CAPABILITIES
    # Its start writes to /etc, /var and /opt.
    assert "readOnlyRootFilesystem" not in rights
    assert not {"hostNetwork", "hostPID", "hostIPC"} & found.keys()
    assert found["automountServiceAccountToken"] is False
    assert {v for volume in found["volumes"] for v in volume} == {"name", "persistentVolumeClaim", "emptyDir"}


def test_its_folder_is_prepared_by_our_own_image() -> None:
    (init,) = pod(sandbox())["initContainers"]
    assert init["image"] == CONTEXT.sandbox_image
    assert init["securityContext"]["runAsUser"] == 10001
    assert init["securityContext"]["runAsNonRoot"] is True
    (on_host,) = pod(sandbox(volume={"hostPath": "/data"}))["initContainers"]
    assert on_host["securityContext"]["runAsUser"] == 0


def test_settings() -> None:
    variables = env(container(sandbox({"port": 8181})))
    assert variables["PUBLIC_PORT"] == "8181"
    assert (variables["USER_UID"], variables["USER_GID"]) == ("10001", "10001")
    # It gives WORKSPACE away on each start: never the image volume.
    assert not variables["WORKSPACE"].startswith("/mnt")
    assert "DISABLE_JUPYTER" not in variables
    assert {name for name, value in variables.items() if name.startswith("DISABLE_") and value == "true"} == {
        *("DISABLE_BROWSER", "DISABLE_CODE_SERVER", "DISABLE_MCP_BROWSER", "DISABLE_NODEJS_REPL", "DISABLE_VNC")
    }
    assert not [name for name in variables if name.startswith("S1VL_")]


def test_it_has_its_own_tenants_key_and_no_other_secret() -> None:
    variables = env(container(sandbox()))
    key = {"secretKeyRef": {"name": "demo-sandbox-chem", "key": "apiKey"}}
    assert [v for v in variables.values() if isinstance(v, dict)] == [key]
    assert variables["SANDBOX_API_KEY"] == key


def test_probes_carry_the_key() -> None:
    one = container(sandbox())
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        shell, flag, script = one[name]["exec"]["command"]
        assert (shell, flag) == ("sh", "-c")
        assert "X-AIO-API-Key: $SANDBOX_API_KEY" in script
        assert "/v1/sandbox" in script
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 120


@pytest.mark.parametrize(
    ("limits", "storage"), [({"memory": "2Gi"}, "2Gi"), ({"memory": "2Gi", "ephemeral-storage": "9Gi"}, "9Gi")]
)
def test_what_it_writes_is_bounded(limits: dict[str, str], storage: str) -> None:
    made = container(sandbox({"resources": {"limits": limits}}))
    assert made["resources"]["limits"] == {**limits, "ephemeral-storage": storage}


def test_a_tenant_may_have_another_image_and_a_patch() -> None:
    own = {"image": "b", "podTemplate": {"spec": {"containers": [{"name": "sandbox", "tty": True}]}}}
    made = container(sandbox(own=own))
    assert (made["image"], made["tty"]) == ("b", True)
    assert made["volumeMounts"] == [{"name": "images", "mountPath": "/mnt/data/images", "subPath": "chem"}]


def test_everything_but_the_pod_is_the_same() -> None:
    """Only the orchestrator must know the kind of sandbox: Services, policies and the rest do not depend on it."""
    plain, stock = (
        {(m["kind"], m["metadata"]["name"]): m for m in desired_state(made, CONTEXT)}
        for made in (deployment(), deployment({"sandbox": AIO}))
    )
    differ = {key for key in plain | stock if plain.get(key) != stock.get(key)}
    assert differ == {("Deployment", "demo-sandbox-chem"), ("ConfigMap", "demo-orchestrator")}
    configs = [yaml.safe_load(one["ConfigMap", "demo-orchestrator"]["data"]["config.yaml"]) for one in (plain, stock)]
    assert [config["sandbox"].pop("profile") for config in configs] == ["s1vl", "aio"]
    assert configs[0] == configs[1]
