"""`s1vl`: the commands."""

from __future__ import annotations

from importlib.metadata import version as installed_version

import typer

app = typer.Typer(help="Commands for those who use an s1vl deployment.", no_args_is_help=True, add_completion=False)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("s1vl"))


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
