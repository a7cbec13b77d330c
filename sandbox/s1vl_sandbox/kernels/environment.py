"""The environment variables of kernels. Apart, because some must be set before anything large is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Nothing else of the host's environment reaches a kernel: it may hold secrets, and it is nobody's business.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")

# Each thread costs address space and several kernels share few cores.
THREADS = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
BACKEND = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def kernel_environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a kernel whose private folder is ``folder``."""
    return {
        **{name: environ[name] for name in _PASSED_ON if name in environ},
        "HOME": str(folder / "work"),
        "TMPDIR": str(folder / "work"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        **BACKEND,
        **THREADS,
    }
