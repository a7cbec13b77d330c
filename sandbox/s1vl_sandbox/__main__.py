"""``s1vl-sandbox serve`` serves, ``kernels`` hosts its kernels, ``storage-init`` prepares a tenant's folder."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from pathlib import Path


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
    # As PID 1 of its container it would not hear a signal for which it has no handler.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Nothing that is imported is garbage, and to look for some would be a seventh of a start.
    gc.disable()
    if arguments.command == "kernels":
        from s1vl_sandbox.kernels import program as kernels  # noqa: PLC0415  (not what the server imports)

        sys.exit(kernels.main(arguments.parent, os.environ))
    from s1vl_sandbox import program  # noqa: PLC0415

    sys.exit(program.main())


if __name__ == "__main__":
    main()
