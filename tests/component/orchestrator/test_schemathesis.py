"""Requests made up from the OpenAPI documents, good and bad: no answer may differ from what they say."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from tests.component.orchestrator.conftest import World, code, final, png, until

REPOSITORY = Path(__file__).parents[3]
HOOKS = "tests.component.orchestrator.schemathesis_hooks"
MADE = "from PIL import Image\nImage.new('RGB', (40, 50)).save(output_dir + '/made.png')"
SECONDS = 300

CONFIG = """
seed = 1

[generation]
deterministic = true
database = "none"

# A request may be of the right form and still mean nothing that can be done: no picture, no such file, no such model.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "400", "401", "404"]
"""


def say(messages: list[dict[str, Any]]) -> str:
    """One turn of code and then the answer, for any number of jobs at once."""
    return final("red") if any(message["role"] == "tool" for message in messages) else code(MADE)


async def find(url: str, folder: Path, *, examples: int, headers: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run schemathesis with all its checks; returns its exit code and what it says."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", f"{url}/openapi.json",
        "--checks", "all", "--max-examples", str(examples), "--no-color", "--request-timeout", "90",
        *(part for header in headers for part in ("--header", header)),
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(REPOSITORY)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_clients_port(world: World, tmp_path: Path) -> None:
    world.config["anonymousTenant"] = ""  # With one, a request needs no key, which would be a finding.
    world.write_config()
    await until(lambda: world.service.snapshot.config.anonymous_tenant == "")  # type: ignore[union-attr]
    world.put("panel.png", png(size=(300, 200)))
    world.engine.script = [say]
    exit_code, said = await find(world.url, tmp_path, examples=60, headers=("Authorization: Bearer key-chem",))
    assert exit_code == 0, said
    # It got through to the model, by both ways in.
    assert len(world.engine.requests) > 10, said
    assert not world.service.active
    assert not world.copies()


async def test_the_management_port(world: World, tmp_path: Path) -> None:
    exit_code, said = await find(world.management, tmp_path, examples=100)
    assert exit_code == 0, said
