"""The real process, both ports, and a signal: nobody is refused, and what runs is finished."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.component.orchestrator.boxes import waits
from tests.component.orchestrator.conftest import PLAIN, World, code, final, image, png, text, until

PROGRAM = """
import sys
from s1vl_orchestrator import __main__ as program
program.LINGER_SECONDS = float(sys.argv.pop(1))
program.main()
"""


@asynccontextmanager
async def orchestrator(world: World, folder: Path, linger: float) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """The process, and a client of it; it serves already."""
    with (folder / "log").open("w+b") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(linger), "--config", world.config_file,
            "--secrets-dir", folder / "secrets", "--host", "127.0.0.1", "--port", "0", "--management-port", "0",
            stderr=log,
        )  # fmt: skip
    try:

        def port() -> str:
            found = [line for line in (folder / "log").read_text().splitlines() if "Uvicorn running on" in line]
            return found[0].split("http://")[1].split(" ")[0] if len(found) > 1 else ""

        address = await until(port, "both ports", 120)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=120, **PLAIN) as http:
            # Held until the first canary is back.
            assert (await ask(http)).status_code == 200, (folder / "log").read_text()
            yield process, http
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/process", json={"messages": [text(), image(png())]})


async def test_it_finishes_the_running_job(world: World, tmp_path: Path) -> None:
    async with orchestrator(world, tmp_path, linger=1) as (process, http):
        slow = "import time\nopen(output_dir + '/started', 'w').close()\ntime.sleep(2)\nprint(1)"
        world.engine.script = [code(slow), final("finished")]
        job = asyncio.create_task(ask(http))
        await until(lambda: list(world.folder().glob(".s1vl/jobs/*/output/started")), "the cell to run")
        process.send_signal(signal.SIGTERM)
        assert (await job).json()["answer"] == "finished"
        assert await asyncio.wait_for(process.wait(), 120) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(line["message"].startswith("job done") and line["job_id"] and line["request_id"] for line in lines)
    await until(lambda: not world.sandboxes["chem"].sessions, "the sessions to go")


async def test_clients_that_keep_their_connections_are_served_and_sent_away(world: World, tmp_path: Path) -> None:
    async with orchestrator(world, tmp_path, linger=600) as (process, kept):
        assert "connection" not in (await ask(kept)).headers
        process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=kept.base_url, timeout=120, **PLAIN) as other:
            while (await other.get("/readyz")).status_code == 200:
                pass
        served = [await ask(kept) for _ in range(3)]
        assert {(answer.status_code, answer.headers["connection"]) for answer in served} == {(200, "close")}
        streams = {answer.extensions["network_stream"] for answer in served}
        assert len(streams) == 3, "each of them had a connection of its own"


async def test_connections_that_nobody_uses_are_closed(world: World, tmp_path: Path) -> None:
    """A long job keeps the process for minutes; who sends the next request on an old connection must not meet that."""
    world.config["sandbox"]["executionTimeoutSeconds"] = 300
    world.write_config()
    async with orchestrator(world, tmp_path, linger=1) as (process, http):
        world.engine.script = [code(waits("go")), final("finished")]
        job = asyncio.create_task(ask(http))
        [started] = await until(lambda: list(world.folder().glob(".s1vl/jobs/*/output/go.started")), "the cell to run")
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readuntil(b"ok")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(reader.read(), 120) == b""
        writer.close()
        assert process.returncode is None
        (started.parent / "go").touch()
        answer = await job
        assert (answer.json()["answer"], answer.headers["connection"]) == ("finished", "close")
        assert await asyncio.wait_for(process.wait(), 120) == 0
