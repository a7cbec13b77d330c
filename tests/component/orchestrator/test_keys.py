"""Keys are replaced one after the other, and nobody is refused meanwhile."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.component.orchestrator.boxes import FIRST, SECOND, sandbox_of_chem
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until


async def test_a_tenant_may_have_several_keys(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secrets/demo-tenant-bio/apiKey"
    for keys, accepted in (
        ("key-bio\nnew\n", {"key-bio": 200, "new": 200}),
        ("\r\n  new  \r\n\r\n", {"key-bio": 401, "new": 200}),
        ("\n \n", {"key-bio": 401, "new": 401}),
    ):
        secret.write_text(keys)
        for key, status in accepted.items():
            known = "bio" if status == 200 else None
            await until(lambda key=key, known=known: world.service._keys.tenant(key) == known, "it to be read")  # type: ignore[misc]
            assert (await world.ask(text(), image(png()), key=key)).status_code == status
    assert (await world.tenants())["tenants"][1]["reason"] == "KeyMissing"


@pytest.mark.parametrize("first", ["the Secret", "the pod"])
async def test_a_sandboxs_key_is_replaced(world: World, tmp_path: Path, first: str) -> None:
    """The old pod goes on with the old key while it has jobs, the new pod has the new one."""
    secret = tmp_path / "secrets/demo-sandbox-chem/apiKey"
    async with sandbox_of_chem(world) as boxes:
        await boxes.start(FIRST, SECOND)
        boxes.boxes[SECOND].key = "new"
        boxes.list(FIRST)
        await boxes.ready(FIRST)
        job = await boxes.job("print(x)")
        # Nothing but a refusal makes anybody read Secrets again, where the pod comes first.
        world.service._secrets_due = 0.0 if first == "the Secret" else math.inf
        if first == "the Secret":
            secret.write_text("new")
            await until(lambda: world.service.tenants["chem"].place.sandboxes._keys.to_try(None)[0] == "new")
        boxes.list(FIRST, SECOND)
        if first == "the pod":
            await until(lambda: "HTTP 401" in boxes.all().get(SECOND, {}).get("message", ""), "a refusal")
            secret.write_text("new")
        await boxes.ready(FIRST, SECOND)
        boxes.list(SECOND)
        await until(lambda: not boxes.all()[FIRST]["listed"])
        boxes.go_on()
        assert [turn["cell"] and turn["cell"]["status"] for turn in (await job)["turns"]] == ["ok", "ok", None]
        await until(lambda: set(boxes.all()) == {SECOND}, "the old pod to be forgotten")
        assert not boxes.boxes[FIRST].sessions
        world.engine.script = [code("print(1)"), final("red")]
        assert (await world.answer(text(), image(png())))["stop_reason"] == "answer"
