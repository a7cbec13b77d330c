"""`s1vl-operator`: run the operator, or write its custom resource definition and its runbook."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from s1vl_operator.api import crd, reference, runbook

logger = logging.getLogger("s1vl_operator")


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="s1vl-operator", description="Runs S1VLDeployments. Settings: S1VL_OPERATOR_*."
    )
    commands = parser.add_subparsers(dest="command")
    show = commands.add_parser("crd", help="print the custom resource definition, or its reference")
    show.add_argument("--format", choices=("yaml", "markdown"), default="yaml")
    write = commands.add_parser("runbook", help="write a page for every reason that a status can have")
    write.add_argument("folder", type=Path, help="where to; pages of other reasons in it are removed")
    chosen = parser.parse_args(arguments)
    if chosen.command == "crd":
        sys.stdout.write(reference.markdown() if chosen.format == "markdown" else crd.render())
        return 0
    if chosen.command == "runbook":
        _write(chosen.folder, runbook.pages())
        return 0
    return _run()


def _write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text)


def _run() -> int:
    # Only now: printing the CRD needs neither kopf nor a client.
    from s1vl_operator import process  # noqa: PLC0415
    from s1vl_operator.settings import Settings  # noqa: PLC0415
    from s1vl_operator.telemetry import configure_logging  # noqa: PLC0415

    settings = Settings()
    configure_logging(settings.log_format)
    try:
        process.run(settings)
    except Exception:
        logger.exception("Stopping")
        return 1
    logger.info("Stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
