"""The mission's path-mount consistency: a wrong mount is seen, gated and said, and heals."""

from __future__ import annotations

from pathlib import Path

from hack.demo import ask, picture
from hack.kube import wait_for
from tests.e2e.conftest import Space

WRONG_MOUNT = {
    "podTemplate": {
        "spec": {
            "containers": [
                {
                    "name": name,
                    "volumeMounts": [{"mountPath": "/mnt/data/images", "name": "images", "subPath": "elsewhere"}],
                }
                for name in ("sandbox", "kernels")
            ]
        }
    }
}


def test_a_wrong_mount_is_gated_and_heals(space: Space, tmp_path: Path) -> None:
    picture.write(tmp_path / "p.png", seed=1)
    space.apply_ready(space.deployment("chem", "bio"))
    paths = {t: space.put_image(t, "p.png", (tmp_path / "p.png").read_bytes()) for t in ("chem", "bio")}
    keys = {t: space.tenant_key(t) for t in ("chem", "bio")}

    # The wrong folder exists and can be written: the sandbox works, only not where everybody thinks.
    broken = space.deployment({"name": "chem", "sandbox": WRONG_MOUNT}, "bio")
    space.kube.exec("deploy/demo-orchestrator", space.name, "mkdir", "-p", "/srv/s1vl/images/elsewhere/.s1vl/canary")
    before = {pod["metadata"]["uid"] for pod in space.pods("s1vl.io/tenant=chem")}
    space.kube.apply(broken)
    # As long as the old pod is there it serves.
    wait_for("another pod", lambda: not before & {p["metadata"]["uid"] for p in space.pods("s1vl.io/tenant=chem")})
    condition = space.wait_condition("PathsConsistent", "False", "CanaryMismatch")
    assert "/data/images" in condition["message"]
    assert "/mnt/data/images" in condition["message"]
    assert "chem" in condition["message"]
    space.wait_condition("Ready", "False")

    body = {"messages": [{"type": "text", "text": "Please carefully analyze this scientific image."}]}
    with space.orchestrator() as http:
        refused = http.post(
            "/process", json={**body, "image_path_list": [paths["chem"]]}, headers={"X-API-Key": keys["chem"]}
        )
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "paths_inconsistent"
        assert int(refused.headers["Retry-After"]) >= 1
        # The other tenant is served all the while.
        served = ask.ask(str(http.base_url), tmp_path / "p.png", paths["bio"], api_key=keys["bio"])
        assert served["stop_reason"] == "answer"

    space.apply_ready(space.deployment("chem", "bio"))
    space.wait_condition("PathsConsistent", "True")
    with space.orchestrator() as http:
        healed = ask.ask(str(http.base_url), tmp_path / "p.png", paths["chem"], api_key=keys["chem"])
        assert healed["stop_reason"] == "answer"
