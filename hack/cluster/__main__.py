"""`python -m hack.cluster up|down|status|kubeconfig`."""

from __future__ import annotations

import sys

import typer

from hack.cluster import paths
from hack.ui import Failure, exit_on_failure, fail, say

app = typer.Typer(help="A real single-node Kubernetes on this machine.", no_args_is_help=True, add_completion=False)


@app.command()
def up() -> None:
    """Start the cluster; does nothing when it runs."""
    from hack.cluster.up import up as action  # noqa: PLC0415 - `kubeconfig` needs none of it

    with exit_on_failure():
        action()


@app.command()
def down() -> None:
    """Take the cluster down and leave nothing behind."""
    from hack.cluster.down import take_down  # noqa: PLC0415
    from hack.cluster.up import machine_lock  # noqa: PLC0415

    with exit_on_failure(), machine_lock():
        if not take_down():
            say("No cluster is running, and nothing of one is left.")


@app.command()
def status() -> None:
    """Say of each component whether it runs and works; ends with 1 when something does not."""
    from hack.cluster.status import show  # noqa: PLC0415

    sys.exit(0 if show() else 1)


@app.command()
def kubeconfig() -> None:
    """Print the path of the kubeconfig: export KUBECONFIG=$(python -m hack.cluster kubeconfig)."""
    if not paths.KUBECONFIG.exists():
        fail(Failure("the local cluster is not running; `make cluster-up` starts it"))
        sys.exit(1)
    print(paths.KUBECONFIG)


if __name__ == "__main__":
    app()
