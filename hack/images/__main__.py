"""`python -m hack.images build [--load] [NAME ...]`."""

from __future__ import annotations

from typing import Annotated

import typer

from hack.images import build as builder
from hack.images.load import load_into_cluster
from hack.ui import exit_on_failure, say

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def main() -> None:
    """Images without a registry: built once, named by their content."""


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="s1vl, s1vl-sandbox, s1vl-engine-sim; all by default.")
    ] = None,
    load: Annotated[bool, typer.Option("--load", help="Import what the running local cluster does not have.")] = False,
) -> None:
    """Build what has changed into .s1vl/images."""
    images = builder.find(names or [])
    references = builder.build(images)
    if load:
        load_into_cluster(images, references)
    for image in images:
        say(references[image.name])


if __name__ == "__main__":
    with exit_on_failure():
        app()
