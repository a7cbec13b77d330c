"""`vllm serve MODEL ...` and `vllm --version`, without a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hack.engine_sim.flags import ConfigError, parse_options
from hack.engine_sim.server import serve
from hack.engine_sim.versions import behaviour_of, simulated_version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits 2 for what the parser refuses and 1 for what fails while starting."""
    try:
        behaviour = behaviour_of(simulated_version())
        options = parse_options(sys.argv[1:] if arguments is None else arguments, behaviour)
        serve(options, behaviour)
    except (ConfigError, ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
