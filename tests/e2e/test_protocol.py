"""A protocol of one's own in a ConfigMap: used, broken, kept and mended, all while jobs are answered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from hack.demo import ask, picture
from hack.kube import wait_for
from tests.e2e.conftest import GPU, ROOT, Space

CR = "microscopy"


def _example(space: Space) -> tuple[dict[str, Any], dict[str, Any]]:
    own, cr = yaml.safe_load_all((ROOT / "examples/protocol.yaml").read_text())
    for manifest in (own, cr):
        manifest["metadata"]["namespace"] = space.name
    cr["spec"]["engine"] = {"gpuResource": GPU}
    return own, cr


def _changed(own: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    changed = copy.deepcopy(own)
    text = changed["data"]["protocol.yaml"]
    assert old in text
    changed["data"]["protocol.yaml"] = text.replace(old, new)
    return changed


def _results(space: Space, tmp_path: Path) -> str:
    """Ask about a picture, see that the answer is right, and return what came back from the sandbox on the way."""
    truth = picture.write(tmp_path / "plate.png", seed=7)
    path = space.put_image("confocal", "plate.png", (tmp_path / "plate.png").read_bytes(), cr=CR)
    with space.orchestrator(CR) as http:
        result = ask.ask(str(http.base_url), tmp_path / "plate.png", path, api_key=space.tenant_key("confocal", CR))
    assert truth.colour in result["answer"]
    assert result["stop_reason"] == "answer"
    return "\n".join(ask.text_of(m["content"]) for m in result["messages"] if m["role"] == "tool")


def test_a_protocol_of_ones_own(space: Space, tmp_path: Path) -> None:
    own, cr = _example(space)
    without = _changed(own, "code_open: <code>\n", "")
    space.kube.apply(without, cr)
    condition = space.wait_condition("OrchestratorReady", "False", "ConfigurationRefused", CR)
    assert "code_open: Field required" in condition["message"]

    space.kube.apply(own)
    space.wait_condition("Ready", "True", name=CR)
    assert "<notebook_output>\npicture: " in _results(space, tmp_path)

    space.kube.apply(without)
    condition = space.wait_condition("OrchestratorReady", "False", "ProtocolInvalid", CR)
    print(condition["message"])
    assert "protocol.yaml of the ConfigMap microscopy-protocol" in condition["message"]
    assert "code_open: Field required" in condition["message"]
    assert space.condition("Ready", CR)["reason"] == "ProtocolInvalid"
    assert space.cr(CR)["status"]["tenantsReady"] == "2/2"
    assert "<notebook_output>" in _results(space, tmp_path)

    # A pod that starts now finds the last good one.
    selector = "app.kubernetes.io/component=orchestrator"
    (old,) = space.pods(selector)
    space.kube.kubectl("delete", "pod", old["metadata"]["name"], "-n", space.name)
    wait_for("a new orchestrator that serves", lambda: _serves(space, old["metadata"]["uid"]))
    assert space.condition("OrchestratorReady", CR)["reason"] == "ProtocolInvalid"
    assert "<notebook_output>" in _results(space, tmp_path)

    space.kube.kubectl("delete", "configmap", "microscopy-protocol", "-n", space.name)
    condition = space.wait_condition("OrchestratorReady", "False", "ProtocolNotFound", CR)
    assert "there is no ConfigMap microscopy-protocol" in condition["message"]
    assert "<notebook_output>" in _results(space, tmp_path)

    pods = {pod["metadata"]["uid"] for pod in space.pods()}
    space.kube.apply(_changed(own, "notebook_output", "lab_output"))
    space.wait_condition("Ready", "True", name=CR)
    assert "<lab_output>\npicture: " in _results(space, tmp_path)
    assert {pod["metadata"]["uid"] for pod in space.pods()} == pods, "nothing was restarted"


def _serves(space: Space, before: str) -> bool:
    """Whether another pod than `before` is ready, and the status, of its word, says that all tenants are served."""
    (pod,) = space.pods("app.kubernetes.io/component=orchestrator")
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
    served = space.cr(CR)["status"]["tenantsReady"] == "2/2"
    return pod["metadata"]["uid"] != before and ready and served
