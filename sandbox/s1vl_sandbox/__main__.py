"""``s1vl-sandbox serve`` serves, ``kernels`` hosts its kernels, ``storage-init`` prepares a tenant's folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Seconds that running cells get to end after SIGTERM, before their kernels are killed.
_SHUTDOWN_SECONDS = 10


def main(argv: list[str] | None = None) -> None:
    """Run the program; exits 0 on success, 1 on failure, 2 on a wrong command line, 78 without the asked isolation."""
    parser = argparse.ArgumentParser(prog="s1vl-sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve the Jupyter API (the default); settings: S1VL_SANDBOX_* variables")
    host = commands.add_parser("kernels", help="host the kernels of a server in another container")
    host.add_argument("--parent", type=int, help="process id of the server that started this, to end with it")
    init = commands.add_parser("storage-init", help="create the tenant's folders with owner and mode")
    init.add_argument("--root", type=Path, required=True, help="where the whole image volume is mounted")
    init.add_argument("--sub-path", required=True, help='folder of the tenant below the root; "" is the root itself')
    arguments = parser.parse_args(argv)
    if arguments.command == "storage-init":
        from s1vl_sandbox import storage  # noqa: PLC0415  (keeps the init container's start short)

        sys.exit(storage.main(arguments.root, arguments.sub_path))
    if arguments.command == "kernels":
        from s1vl_sandbox.kernels import program  # noqa: PLC0415  (not what the server imports, and nothing more)

        sys.exit(program.main(arguments.parent, os.environ))
    _serve()


def _serve() -> None:
    import uvicorn  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    from s1vl_sandbox.app import create_app  # noqa: PLC0415
    from s1vl_sandbox.isolation import refuse_without  # noqa: PLC0415
    from s1vl_sandbox.logs import configure_logging  # noqa: PLC0415
    from s1vl_sandbox.processes import become_subreaper, hide_from_peers  # noqa: PLC0415
    from s1vl_sandbox.server import Server  # noqa: PLC0415
    from s1vl_sandbox.settings import Settings  # noqa: PLC0415

    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"s1vl-sandbox: S1VL_SANDBOX_{name}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)
    configure_logging(settings.log_format)
    refuse_without(settings.require_isolation)
    become_subreaper()
    hide_from_peers()
    uvicorn.run(
        create_app(Server(settings, owns_children=True)),
        host=settings.host,
        port=settings.port,
        log_config=None,
        # The query of a request may hold the API key.
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
