from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.desired import paths
from s1vl_operator.desired.orchestrator import config
from tests.unit.operator.desired.conftest import container, deployment, pod, state


def mounts(container: dict[str, Any], volume: str = "images") -> list[dict[str, Any]]:
    return [mount for mount in container["volumeMounts"] if mount["name"] == volume]


SPECS: list[dict[str, Any]] = [
    {},
    {"tenants": [{"name": "chem"}, {"name": "bio", "subPath": "departments/bio"}]},
    {"tenants": [{"name": "all", "subPath": ""}], "images": {"volume": {"hostPath": "/data/images"}}},
    {"sandbox": {"profile": "aio", "image": "aio"}},
    {"images": {"clientPath": "/pictures", "sandboxPath": "/scratch/in", "volume": {"existingClaim": "mine"}}},
]


def on_volume(mount: dict[str, Any], path: str) -> str:
    """Where on the volume a path of a container lies."""
    assert path.startswith(f"{mount['mountPath']}/")
    rest = path.removeprefix(f"{mount['mountPath']}/")
    return "/".join(part for part in (mount.get("subPath", ""), rest) if part)


@pytest.mark.parametrize("spec", SPECS)
def test_one_file_is_the_same_for_everybody(spec: dict[str, Any]) -> None:
    """Follows `x.png` of each tenant through the mounts, by the words of the orchestrator's own configuration."""
    made, conf = state(spec), config(deployment(spec), "s1vl")
    (orchestrator,) = mounts(container(made["Deployment/demo-orchestrator"]))
    (engine,) = mounts(container(made["StatefulSet/demo-engine"]))
    for tenant in conf["tenants"]:
        folder = "/".join(part for part in (conf["images"]["root"], tenant["subPath"]) if part)
        workload = made[f"Deployment/demo-sandbox-{tenant['name']}"]
        expected = on_volume(orchestrator, f"{folder}/x.png")
        for one in pod(workload)["containers"]:
            (sandbox,) = mounts(one)
            assert on_volume(sandbox, f"{conf['images']['sandboxPath']}/x.png") == expected
        assert on_volume(engine, f"{folder}/x.png") == expected
        assert f"{folder}/x.png".startswith(f"{conf['engine']['mediaRoot']}/")
        (init,) = mounts(pod(workload)["initContainers"][0])
        command = pod(workload)["initContainers"][0]["command"]
        assert command[:2] == ["s1vl-sandbox", "storage-init"]
        arguments = dict(zip(command[2::2], command[3::2], strict=True))
        init_folder = "/".join(p for p in (arguments["--root"], arguments["--sub-path"]) if p)
        assert on_volume(init, f"{init_folder}/x.png") == expected
    volumes = [
        v for m in made.values() if "template" in m.get("spec", {}) for v in pod(m)["volumes"] if v["name"] == "images"
    ]
    assert len(volumes) == len(conf["tenants"]) + 2
    assert all(volume == volumes[0] for volume in volumes)


def test_rights_on_the_volume() -> None:
    table = paths.table(deployment())
    assert table.engine["readOnly"] is True
    assert "readOnly" not in table.orchestrator
    assert "readOnly" not in table.sandboxes["chem"]
    assert table.sandboxes["chem"] == {"name": "images", "mountPath": "/mnt/data/images", "subPath": "chem"}
    assert table.engine["mountPath"] == table.orchestrator["mountPath"] == table.media_root


@pytest.mark.parametrize(
    ("volume", "source", "by_root"),
    [
        (None, {"persistentVolumeClaim": {"claimName": "demo-images"}}, False),
        ({"existingClaim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}, False),
        ({"hostPath": "/data/images"}, {"hostPath": {"path": "/data/images", "type": "Directory"}}, True),
    ],
)
def test_volume(volume: dict[str, Any] | None, source: dict[str, Any], by_root: bool) -> None:
    table = paths.table(deployment({"images": {"volume": volume}} if volume else {}))
    assert table.volume == {"name": "images", **source}
    assert table.prepared_by_root is by_root
