"""`s1vl`: the commands."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from s1vl_cli.evaluation.command import Options, evaluate

app = typer.Typer(
    help="Commands for those who use an s1vl deployment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Mode(StrEnum):
    """How the server is to answer."""

    THINKING_WITH_IMAGES = "thinking-with-images"
    REASONING = "reasoning"


@app.command("eval")
def eval_(  # noqa: PLR0917  (each is an option of the command line)
    dataset: Annotated[Path, typer.Argument(help="A multiple-choice data set in VLMEvalKit's TSV format.")],
    base_url: Annotated[
        str, typer.Option(help="The server, as OpenAI's clients take it.")
    ] = "http://localhost:10044/v1",
    api_key: Annotated[str, typer.Option(envvar="S1VL_API_KEY", help="The tenant's key.")] = "",
    model: Annotated[str, typer.Option(help="Default: the first that the server lists.")] = "",
    mode: Annotated[
        Mode | None, typer.Option(help="Whether the model may run code on the pictures. Default: the server's.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Questions under way at once.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Bounds the answer. Default: the server's.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one answer.")] = 600,
    out: Annotated[
        Path | None, typer.Option(help="Where results are kept. Default: DATASET.results.jsonl here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Measure accuracy on a multiple-choice data set (V*, HRBench, ...); go on where the last run stopped.

    Exit status: 0 all answered, 1 some not, 2 wrong usage or refused by the server, 130 interrupted.
    """
    options = Options(
        dataset=dataset,
        base_url=base_url,
        api_key=api_key,
        model=model,
        mode=mode.value if mode else None,
        concurrency=concurrency,
        limit=limit,
        max_tokens=max_tokens,
        timeout=timeout,
        out=out,
        json=json,
    )
    raise typer.Exit(evaluate(options))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("s1vl"))


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
