"""The command line: the operator's is taken, the model card's own form of a limit is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hack.ports import free_port
from hack.vllm import arguments, serve
from s1vl_operator.desired import vllm
from tests.engine.conftest import REAL


def test_the_operators_flags_are_accepted(engine) -> None:
    server = engine.running()
    words = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    wanted = {word for flag in vllm.FLAGS for word in flag.render(arguments.deployment(9200)) if word.startswith("--")}
    assert len(wanted) >= 10
    assert wanted <= set(words)
    assert words[words.index("--limit-mm-per-prompt") + 1] == '{"image":15,"video":0}'
    assert serve.healthy(server.url)


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["--limit-mm-per-prompt", "image=15"], 2, "Value image=15 cannot be converted to <function loads at"),
        (["--no-such-flag"], 2, "unrecognized arguments: --no-such-flag"),
        (["--reasoning-parser", "nope"], 1, "Reasoning parser 'nope' not found. Available parsers: "),
    ],
)
def test_bad_flags_are_refused(engine, tmp_path, extra: list[str], code: int, message: str) -> None:
    engine.running()  # skips where the server is not ours
    program = serve.real() if REAL else serve.simulator()
    launch = arguments.launch(free_port(), program.model, engine.media, tmp_path)
    ended = subprocess.run(
        [*program.command, *launch.words, *extra],
        check=False, env=serve.environment(launch.environment), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
