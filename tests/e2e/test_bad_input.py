"""Bad custom resources are refused with a message a person understands, bad requests with the documented error."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from hack.kube import CommandError
from tests.e2e.conftest import Space


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"engine": {"gpus": 3}}, "gpus"),
        ({"engine": {"gpu": 4}}, "unknown field"),
        ({"images": {"sandboxPath": "mnt/images"}}, "absolute"),
        ({"images": {"sandboxPath": "/mnt/../etc"}}, "normalised"),
        ({"images": {"sandboxPath": "/proc/images"}}, "/proc"),
        ({"tenants": [{"name": "chem"}, {"name": "chem"}]}, "Duplicate"),
        ({"tenants": [{"name": "chem"}, {"name": "bio", "subPath": "chem/bio"}]}, "subPath"),
        ({"orchestrator": {"replicas": 1, "autoscaling": {"min": 1, "max": 2}}}, "autoscaling"),
    ],
)
def test_kubectl_refuses(shared_space: Space, spec: dict[str, Any], said: str) -> None:
    tenants = spec.pop("tenants", None)
    manifest = shared_space.deployment("chem", cr="refused", **spec)
    if tenants:
        manifest["spec"]["tenants"] = tenants
    with pytest.raises(CommandError) as refused:
        shared_space.kube.apply(manifest)
    assert said.lower() in str(refused.value).lower()


def _png(colour: str = "red") -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _image(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


TEXT = {"type": "text", "text": "What is the colour of the small mark?"}


def test_bad_requests_get_their_error_and_leave_nothing(shared_space: Space) -> None:
    space = shared_space
    space.apply_ready(space.deployment())
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"messages": [TEXT, _image("!!!")], "image_path_list": []}, 400, "invalid_image"),
        ({"messages": [TEXT, _image(base64.b64encode(b"no picture").decode())]}, 400, "invalid_image"),
        ({"messages": [TEXT, *[_image(_png())] * 16]}, 400, "too_many_images"),
        ({"messages": [TEXT], "image_path_list": ["/data/images/../../etc/passwd"]}, 404, "image_not_found"),
        ({"messages": [TEXT], "image_path_list": ["/etc/passwd"]}, 404, "image_not_found"),
        ({"messages": "what?"}, 400, "invalid_request"),
        ({"messages": []}, 400, "invalid_request"),
    ]
    with space.orchestrator() as http:
        for body, status, code in cases:
            answer = http.post("/process", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            assert answer.json()["error"]["message"]
        assert jobs(space) == []

        space.kube.kubectl("delete", "pod", "demo-engine-0", "-n", space.name, "--wait=false")
        space.wait_condition("EngineReady", "False")
        down = http.post("/process", json={"messages": [TEXT, _image(_png())], "deadline_seconds": 5}, timeout=60)
        if down.status_code != 200:  # The engine may be back before the request's own retries end.
            assert (down.status_code, down.json()["error"]["code"]) == (503, "engine_unavailable")
            assert "Retry-After" in down.headers
            assert jobs(space) == []


def jobs(space: Space) -> list[str]:
    """What is left in the tenant's folder of jobs."""
    return space.kube.exec("deploy/demo-orchestrator", space.name, "ls", "/srv/s1vl/images/chem/.s1vl/jobs").split()
