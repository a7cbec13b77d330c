"""The simulator as a process of its own, with faults, versions and flags as a test wants them."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from hack.ports import free_port
from hack.vllm.serve import healthy

REPOSITORY = Path(__file__).resolve().parents[3]
VLLM = REPOSITORY / "hack" / "engine_sim" / "bin" / "vllm"
MODEL = "ScienceOne-AI/S1-VL-32B"
START_TIMEOUT = 60.0
SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def png(width: int = 64, height: int = 64, colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def image_part(url: str | None, uuid: str | None = None) -> dict[str, object]:
    part: dict[str, object] = {"type": "image_url", "image_url": None if url is None else {"url": url}}
    return part | ({"uuid": uuid} if uuid else {})


class Client:
    """What tests ask of a running engine at `url`."""

    url: str

    def body(self, *parts: object, **fields: object) -> dict[str, object]:
        return {"model": MODEL, "messages": [{"role": "user", "content": list(parts)}], "max_tokens": 16, **fields}

    def chat(self, *parts: object, timeout: float = 300.0, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=self.body(*parts, **fields), timeout=timeout)

    def series(self, name: str) -> list[tuple[dict[str, str], float]]:
        """All series of a name: labels and value."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        found = [match for line in lines if (match := SERIES.fullmatch(line)) and match[1] == name]
        return [(dict(LABEL.findall(match[2] or "")), float(match[3])) for match in found]

    def metric(self, name: str, **labels: str) -> float:
        """The value of the first series with these labels, among others."""
        for said, value in self.series(name):
            if labels.items() <= said.items():
                return value
        raise AssertionError(f"no series {name} {labels}")


@dataclass
class Engine(Client):
    """A running simulator; `media` is the folder it was allowed to read."""

    url: str
    media: Path
    process: subprocess.Popen[bytes]

    def faults(self, **faults: object) -> None:
        httpx.put(f"{self.url}/sim/faults", json=faults, timeout=30).raise_for_status()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)


Start = Callable[..., Engine]


def _start(media: Path, log: Path, *extra: str, wait: bool = True, **environment: str) -> Engine:
    port = free_port()
    command = [
        sys.executable, str(VLLM), "serve", "./tiny-qwen3vl", "--served-model-name", MODEL,
        "--tensor-parallel-size", "1",
        "--max-model-len", "32768", "--limit-mm-per-prompt", '{"image":15,"video":0}',
        "--reasoning-parser", "deepseek_r1", "--enable-prefix-caching", "--gpu-memory-utilization", "0.3",
        "--port", str(port), "--host", "127.0.0.1", "--load-format", "dummy", "--dtype", "float32", "--enforce-eager",
        "--allowed-local-media-path", str(media), "--mm-processor-cache-gb", "1",
        "--structured-outputs-config", '{"enable_in_reasoning": true}', *extra,
    ]  # fmt: skip
    if "VLLM_SIM_VERSION" not in environment and "--shutdown-timeout" not in extra:
        command += ["--shutdown-timeout", "30"]  # older versions do not know it
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT)
    engine = Engine(f"http://127.0.0.1:{port}", media, process)
    if wait:
        wait_until(lambda: process.poll() is not None or healthy(engine.url), f"the simulator is up, see {log}")
        assert process.poll() is None, log.read_text()
    return engine


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts simulators with more flags and environment; all are gone after the test."""
    started: list[Engine] = []

    def begin(*extra: str, wait: bool = True, **environment: str) -> Engine:
        media = tmp_path / "media"
        media.mkdir(exist_ok=True)
        log = tmp_path / f"engine-{len(started)}.log"
        started.append(_start(media, log, *extra, wait=wait, **environment))
        return started[-1]

    yield begin
    for engine in started:
        _stop(engine.process)


@pytest.fixture
def image() -> Callable[..., dict[str, object]]:
    """Makes image parts with a data URL: `image(width, height, colour, uuid=...)`."""

    def make(width: int = 64, height: int = 64, colour: str = "red", *, uuid: str | None = None) -> dict[str, object]:
        return image_part(data_url(png(width, height, colour)), uuid)

    return make


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition: `until(lambda: ..., "what")`."""
    return wait_until
