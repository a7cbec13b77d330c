"""`python -m hack.vllm install` and `python -m hack.vllm serve`."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from hack.cluster.paths import ROOT
from hack.ui import Failure, exit_on_failure, say, step
from hack.vllm import install, serve

app = typer.Typer(add_completion=False, help="A real vLLM without a GPU, serving a tiny Qwen3-VL.")


@app.command("install")
def install_command() -> None:
    """Install vLLM's CPU build and write the tiny model, both into the user's cache folder."""
    program = serve.real()
    say(f"vLLM {install.release()} is in {install.folder()}, its tiny model in {program.model}")


@app.command("serve")
def serve_command(
    port: Annotated[int, typer.Option(help="to listen on at 127.0.0.1; 0 for a free one")] = 0,
    media: Annotated[Path | None, typer.Option(help="folder that file:// may read; absent: a temporary one")] = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="s1vl-media-") as own:
        program = serve.real()
        with step(f"start vLLM {install.release()}; its log is {serve.LOG.relative_to(ROOT)}"):
            server = serve.start(program, media or Path(own), port=port or None)
        say(f"export VLLM_URL={server.url} VLLM_MEDIA={server.media}    # pid {server.pid}; Ctrl-C ends it")
        try:
            server.process.wait()
            raise Failure(f"vLLM ended with {server.process.returncode}", server.log)
        except KeyboardInterrupt:
            say("Ending: running requests get their time")
        finally:
            serve.stop(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    with exit_on_failure():
        app()
