"""The demo's path: one CR becomes a service that answers the model card's snippet about a real picture."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from hack.demo import ask, picture
from hack.deploy import OPERATOR_NAMESPACE, RELEASE
from tests.e2e.conftest import Space


@pytest.fixture(scope="module")
def ready(shared_space: Space) -> Space:
    started = time.monotonic()
    manifest = shared_space.deployment()
    shared_space.kube.apply(manifest)
    shared_space.kube.kubectl(
        "wait", "--for=condition=Ready", "s1vl/demo", "-n", shared_space.name, "--timeout=180s", timeout=200
    )
    print(f"cluster.install: apply to Ready in {time.monotonic() - started:.1f} s")
    return shared_space


@pytest.mark.parametrize("seed", [3, 11])
def test_card_snippet_is_answered_from_the_picture(ready: Space, tmp_path: Path, seed: int) -> None:
    truth = picture.write(tmp_path / "field.png", seed=seed)
    client_path = ready.put_image("chem", f"field-{seed}.png", (tmp_path / "field.png").read_bytes())
    with ready.orchestrator() as http:
        result = ask.ask(str(http.base_url), tmp_path / "field.png", client_path)
    final = [m for m in result["messages"] if m["role"] == "assistant"][-1]
    assert truth.colour in final["content"]
    assert result["stop_reason"] == "answer"
    assert len(result["turns"]) >= 2
    crop = result["images"][0]
    assert crop["path"].startswith("/data/images/.s1vl/jobs/")
    inside = crop["path"].replace("/data/images", "/srv/s1vl/images/chem")
    assert ready.kube.exec("deploy/demo-orchestrator", ready.name, "sha256sum", inside).split()[0] == crop["sha256"]


def test_two_pictures_with_other_marks_get_other_answers(ready: Space, tmp_path: Path) -> None:
    answers = set()
    truths = set()
    with ready.orchestrator() as http:
        for seed in range(4):
            truth = picture.write(tmp_path / f"{seed}.png", seed=seed)
            path = ready.put_image("chem", f"other-{seed}.png", (tmp_path / f"{seed}.png").read_bytes())
            result = ask.ask(str(http.base_url), tmp_path / f"{seed}.png", path)
            assert truth.colour in result["answer"]
            answers.add(result["answer"])
            truths.add(truth.colour)
    assert len(truths) > 1
    assert len(answers) > 1


def test_the_job_leaves_no_kernel(ready: Space, tmp_path: Path) -> None:
    picture.write(tmp_path / "p.png", seed=5)
    path = ready.put_image("chem", "kernels.png", (tmp_path / "p.png").read_bytes())
    with ready.orchestrator() as http:
        ask.ask(str(http.base_url), tmp_path / "p.png", path)
    sandbox = f"http://demo-sandbox-chem.{ready.name}.svc:8080"
    ask_sandbox = ("python3", "-c", _SESSIONS, ready.secret("demo-sandbox-chem", "apiKey"), sandbox)
    assert ready.kube.exec("deploy/demo-orchestrator", ready.name, *ask_sandbox).strip() == "[]"


_SESSIONS = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[2] + "/v1/jupyter/sessions", headers={"X-AIO-API-Key": sys.argv[1]})
print(json.dumps(list(json.load(urllib.request.urlopen(request, timeout=10))["data"]["sessions"])))
"""


def test_kubectl_get_is_readable(ready: Space) -> None:
    header, row = ready.kube.kubectl("get", "s1vl", "-n", ready.name).strip().splitlines()
    assert header.split()[:3] == ["NAME", "READY", "REASON"]
    assert {"ENGINE", "TENANTS", "URL", "AGE"} <= set(header.split())
    assert re.match(r"demo\s+True\s+\w+", row)
    assert f"demo-orchestrator.{ready.name}" in row


def test_describe_tells_the_story_by_events_and_conditions(ready: Space) -> None:
    story = ready.kube.kubectl("describe", "s1vl", "demo", "-n", ready.name)
    for condition in ("Ready", "EngineReady", "OrchestratorReady", "SandboxesReady", "PathsConsistent"):
        assert ready.condition(condition)["status"] == "True", condition
        assert condition in story
    assert "Events:" in story
    events = story.split("Events:")[1]
    assert "PathsConsistent" in events or "AllReady" in events, events


def test_pods_are_restricted_and_carry_no_token(ready: Space) -> None:
    sandbox = ready.pods("app.kubernetes.io/component=sandbox")[0]
    assert sandbox["spec"]["automountServiceAccountToken"] is False
    for pod in ready.pods():
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, json.dumps(security)
            assert security["allowPrivilegeEscalation"] is False


def test_the_chart_says_the_next_command(ready: Space) -> None:
    notes = ready.kube.helm("get", "notes", RELEASE, "-n", OPERATOR_NAMESPACE)
    assert "kubectl apply -f -" in notes
    assert "kubectl wait --for=condition=Ready s1vl/demo" in notes
