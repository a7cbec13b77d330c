"""``python -m bench [part ...]``: measure, print one JSON object a line, exit 1 if a goal is missed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from bench import cluster, orchestrator, sandbox, soak
from bench.figures import Figure, keep

PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "sandbox": sandbox.measure,
    "orchestrator": orchestrator.measure,
    "soak": soak.measure,
    "cluster": cluster.measure,
}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(PARTS)}; all by default.")] = None,
) -> None:
    """Measure the named parts of the system on this machine."""
    chosen = parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there is only {', '.join(PARTS)}")
    missed = 0
    for part in chosen:
        figures = []
        for figure in PARTS[part]():
            print(figure.line(), flush=True)
            figures.append(figure)
        keep(part, figures)
        missed += sum(figure.ok is False for figure in figures)
    if missed:
        print(f"{missed} figures miss their goals", file=sys.stderr)
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
