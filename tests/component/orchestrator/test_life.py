"""Disconnects, leaks, reloads, shutdown, metrics and logs."""

from __future__ import annotations

import asyncio
import base64
import logging
from importlib import resources
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from s1vl_orchestrator.app import create_app
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import FileSource, KubernetesSource, read_snapshot
from s1vl_orchestrator.telemetry import redact
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text, until
from tests.component.orchestrator.fakes import Fail, served

SLOW = "import time\nopen(output_dir + '/started', 'w').close()\ntime.sleep(60)"


def job_sessions(world: World) -> list[str]:
    return list(world.sandboxes["chem"].sessions)


async def hang_up_when(world: World, ready: str) -> None:
    """Start a request and close its connection once a condition holds."""
    conditions = {
        "thinking": lambda: world.engine.requests,
        "executing": lambda: list(world.folder().glob(".s1vl/jobs/*/output/started")),
    }
    task = asyncio.create_task(world.ask(text(), image(png())))
    await until(conditions[ready], ready)
    task.cancel()


@pytest.mark.parametrize(("step", "moment"), [(Fail(-1), "thinking"), (code(SLOW), "executing")])
async def test_a_client_that_hangs_up_leaves_nothing(world: World, step: Fail | str, moment: str) -> None:
    world.engine.script = [step]
    await hang_up_when(world, moment)
    chem = world.service.tenants["chem"]
    await until(lambda: chem.admission.running == 0, "the place to be free")
    await until(lambda: not world.jobs() and not world.copies(), "the files to go")
    await until(lambda: not job_sessions(world), "the session to go")
    if moment == "thinking":
        await until(lambda: world.engine.aborted, "the engine's request to be aborted")


async def test_a_deletion_that_fails_is_swept(world: World) -> None:

    def fail_then_answer(_: object) -> str:
        world.sandboxes["chem"].fail_deletes = 3
        return final("ok")

    world.engine.script = [code("print(1)"), fail_then_answer]
    await world.answer(text(), image(png()))
    await until(lambda: world.sandboxes["chem"].fail_deletes == 0 and not job_sessions(world), "the sweeper")


async def test_a_sandbox_that_is_replaced_in_the_middle(world: World) -> None:
    """Its sessions are gone without a word; the next cell gets a new one, and the model is told what is lost."""
    box = world.sandboxes["chem"]

    def after_replacement(_: object) -> str:
        box.forget()
        return code("print(x)")

    world.engine.script = [code("x = 1"), code("x = 2"), after_replacement, code("print(image_path)"), final("ok")]
    await world.answer(text(), image(png()))
    told = results(world.engine.requests[-1]["messages"])
    assert "variables of earlier code are lost" in told[2]
    assert "/mnt/data/images/.s1vl/jobs/" in told[3]
    await until(lambda: not job_sessions(world), "no session left")


SWAP = """
import os
for folder, _, names in os.walk(os.path.dirname(output_dir)):
    for name in names:
        os.remove(os.path.join(folder, name))
os.symlink("../../../../../bio/secret.png", os.path.join(output_dir, "crop.png"))
assert os.path.exists(os.path.join(output_dir, "crop.png"))
print(os.path.join(output_dir, "crop.png"))
"""


async def test_code_cannot_turn_a_picture_into_another_tenants(world: World) -> None:
    """The engine follows links anywhere below its media root, so no path it is given may be one the code can change."""
    world.put("secret.png", png("blue"), "bio")
    world.engine.script = [code("image_1.resize((99, 99)).save(output_dir + '/crop.png')"), code(SWAP), final("ok")]
    result = await world.answer(text(), image(png()))
    assert [i["width"] for i in result["images"]] == [99]
    assert [t["cell"] and t["cell"]["status"] for t in result["turns"]] == ["ok", "ok", None]
    sent = [m["content"] for request in world.engine.requests for m in request["messages"]]
    parts = [p for content in sent if isinstance(content, list) for p in content if p["type"] == "image_url"]
    urls = {p["image_url"]["url"] for p in parts if p["image_url"]}
    assert len(urls) == 2
    assert not any(url.startswith(f"file://{world.folder()}") for url in urls)


async def test_sessions_of_dead_instances_are_swept(world: World) -> None:
    box = world.sandboxes["chem"]
    await box._start("s1vl-1-orphan")
    await box._start("somebody-elses")
    await until(lambda: "s1vl-1-orphan" not in box.sessions, "the orphan to go")
    assert "somebody-elses" in box.sessions


async def test_many_jobs_at_once_leave_nothing(world: World) -> None:
    world.engine.script = [final("ok")]
    answers = await asyncio.gather(*(world.answer(text(), image(png())) for _ in range(12)))
    assert {a["answer"] for a in answers} == {"ok"}
    assert len({a["id"] for a in answers}) == 12
    world.assert_clean()
    await until(lambda: not job_sessions(world))


async def test_tenants_come_and_go_without_a_restart(world: World) -> None:
    world.engine.script = [final("ok")]
    bio = world.config["tenants"].pop()
    world.write_config()
    await until(lambda: list(world.service.tenants) == ["chem"])
    assert (await world.ask(text(), image(png()), key="key-bio")).status_code == 401
    world.config["tenants"].append(bio)
    world.write_config()
    await until(lambda: "bio" in world.service.tenants and world.service.tenants["bio"].status.consistent)
    assert (await world.ask(text(), image(png()), key="key-bio")).status_code == 200


async def test_a_key_is_replaced_without_a_restart(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secrets/demo-tenant-bio/apiKey"
    secret.write_text("new-key")
    await until(lambda: world.service._keys.tenant("new-key") == "bio")
    assert (await world.ask(text(), image(png()), key="key-bio")).status_code == 401
    secret.unlink()
    await until(lambda: not world.service.tenants["bio"].has_key)
    assert (await world.tenants())["tenants"][1]["reason"] == "KeyMissing"
    assert (await world.ask(text(), image(png()), key="new-key")).status_code == 401
    # The other tenant is none the wiser.
    assert (await world.ask(text(), image(png()), key="key-chem")).status_code == 200


async def test_an_invalid_configuration_is_refused_and_said(world: World) -> None:
    version = (await world.tenants())["configVersion"]
    good = world.config_file.read_text()
    world.config_file.write_text(good.replace("maxTurns: 8", "maxTurns: many"))
    await until(lambda: world.service.config_problem)
    body = await world.tenants()
    assert body["configVersion"] == version
    assert "limits.maxTurns" in body["message"]
    assert body["refused"] is True
    assert (await world.ask(text(), image(png()))).status_code == 200
    world.config_file.write_text(good)
    await until(lambda: not world.service.config_problem)
    assert (await world.tenants())["refused"] is False
    world.config_file.unlink()
    await until(lambda: world.service.config_problem)
    assert (await world.tenants())["refused"] is False, "one that cannot be read is not refused"
    world.config_file.write_text(good)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("", ""), ""),
        (("code_open: <code>", "code_opens: <code>"), "code_open: Field required"),
        (("result_role: tool", "result_role: {"), "not YAML"),
    ],
)
async def test_a_protocol_can_be_tried_before_it_is_used(world: World, change: tuple[str, str], said: str) -> None:
    own = resources.files("s1vl_orchestrator.protocol").joinpath("s1vl.yaml").read_text().replace(*change)
    async with httpx.AsyncClient(base_url=world.management) as http:
        answer = await http.post("/internal/protocol", content=own)
    assert answer.status_code == 200
    assert said in answer.json()["message"]
    assert bool(answer.json()["message"]) is bool(said)


async def test_not_ready_before_a_configuration(tmp_path: Path) -> None:
    service = Service(FileSource(tmp_path / "absent.yaml", tmp_path), poll_seconds=0.05)
    await service.start()
    try:
        async with served(create_app(service)) as url, httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            refused = await http.post("/process", json={})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_configured")
    finally:
        await service.close()


async def test_before_it_drains_it_serves_and_sends_clients_elsewhere(world: World) -> None:
    assert "connection" not in (await world.ask(text(), image(png()))).headers
    world.service.leaving = True
    assert (await world.http.get("/readyz")).status_code == 503
    for query in ("", "?stream=true"):
        answer = await world.http.post(f"/process{query}", json={"messages": [text(), image(png())]})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_draining_finishes_what_runs(world: World) -> None:
    world.engine.script = [code("import time; time.sleep(1); print(1)"), final("finished")]
    running = asyncio.create_task(world.answer(text(), image(png())))
    await until(lambda: world.service.active)
    drained = asyncio.create_task(world.service.drain(60))
    await until(lambda: world.service.draining)
    assert (await world.http.get("/readyz")).status_code == 503
    refused = await world.ask(text(), image(png()))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    await drained
    assert (await running)["answer"] == "finished"


async def test_metrics_and_request_ids(world: World) -> None:
    response = await world.ask(text(), image(png()))
    assert response.headers["x-request-id"]
    echoed = await world.http.get("/healthz", headers={"X-Request-Id": "mine-1"})
    assert echoed.headers["x-request-id"] == "mine-1"
    metrics = (await world.http.get("/metrics")).text
    for line in (
        's1vl_jobs_total{stop_reason="answer",tenant="chem"} 1.0',
        's1vl_paths_consistent{tenant="chem"} 1.0',
        's1vl_jobs_running{tenant="chem"} 0.0',
        "s1vl_engine_turn_seconds_count 1.0",
    ):
        assert line in metrics


async def test_logs_have_no_pictures_and_no_keys(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "s1vl_orchestrator")
    await world.answer(text(), image(png()), key="key-chem")
    assert "key-chem" not in caplog.text
    assert "iVBOR" not in caplog.text
    assert redact("x" * 500) == "<500 characters of base64>"


async def test_without_a_place_for_copies_pictures_travel_as_base64(world: World) -> None:
    (world.root / ".s1vl").write_text("in the way")
    await world.answer(text(), image(png()))
    [part] = [p for p in world.engine.requests[0]["messages"][1]["content"] if p["type"] == "image_url"]
    assert part["image_url"]["url"].startswith("data:image/png;base64,")


async def test_configuration_through_the_kubernetes_api(world: World, tmp_path: Path) -> None:
    api = FastAPI()
    seen = []

    @api.get("/api/v1/namespaces/ns/{resource}/{name}")
    async def get(resource: str, name: str, request: Request) -> JSONResponse:
        seen.append((resource, name, request.headers["authorization"]))
        if resource == "configmaps":
            return JSONResponse({"data": {"config.yaml": world.config_file.read_text()}})
        if name == "demo-tenant-bio":
            return JSONResponse({}, 404)
        if name == "demo-sandbox-bio":
            return JSONResponse({}, 403)
        value = base64.b64encode(b"value").decode()
        return JSONResponse({"data": {"apiKey": value, "cacheSalt": value}})

    token = tmp_path / "token"
    token.write_text("t0ken")
    async with served(api) as url:
        source = KubernetesSource("ns", "demo-orchestrator", httpx.AsyncClient(base_url=url), token)
        snapshot = await read_snapshot(source)
        await source.close()
    chem, bio = snapshot.config.tenants
    assert snapshot.secret(chem.api_key_secret) == b"value"
    assert snapshot.secret(bio.api_key_secret) is None
    assert snapshot.secret(bio.sandbox.api_key_secret) is None
    assert ("configmaps", "demo-orchestrator", "Bearer t0ken") in seen
