"""The four views of one file, and nothing else: pure string work, no file is touched here.

A tenant's file is named by its path relative to the tenant's folder (`Relative`). Each party sees it elsewhere:
the client below `client`, the tenant's sandbox below `sandbox`, we below `root/sub_path`, the engine below
`media_root/sub_path`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

Relative = PurePosixPath
"""A path below the tenant's folder: no leading slash, no `.` or `..` components."""

JOBS = Relative(".s1vl/jobs")
DONE = "done"
"""A file in a job's folder that says that the job is over."""
CANARY = Relative(".s1vl/canary")
ENGINE_COPIES = Relative(".s1vl/engine")
"""Below the *volume's* root, not a tenant's folder: no sandbox mounts it (unless its tenant owns the whole volume).

The engine follows symlinks anywhere below its media root. A path that a sandbox can write could be turned into a
symlink to another tenant's file between our check and the engine's read; a path in here cannot.
"""

MAX_PATH_BYTES = 4095
MAX_NAME_BYTES = 255
_NOT_INSIDE = r"(?<![\w/.-])"
"""Before a path in prose: `/data/images` is not to be found inside of `/mnt/data/images`."""


class OutsideTenantError(ValueError):
    """A path that cannot name a file of the tenant."""


@dataclass(frozen=True)
class TenantPaths:
    """The views of one tenant's folder.

    Attributes:
        client: What clients write before the rest, e.g. `/data/images`.
        sandbox: Mount point in the tenant's sandbox, e.g. `/mnt/data/images`.
        root: Mount point of the whole volume here.
        sub_path: The tenant's folder on the volume; "" when it owns the volume.
        media_root: Mount point of the whole volume in the engine; "" when it has none.
    """

    client: PurePosixPath
    sandbox: PurePosixPath
    root: Path
    sub_path: str
    media_root: str

    @property
    def folder(self) -> Path:
        """The tenant's folder here."""
        return self.root / self.sub_path

    def from_client(self, path: str) -> Relative:
        """Read a path as the client writes it.

        Nothing is decoded: `%2e%2e` is a file name like any other (and will not exist).

        Raises:
            OutsideTenantError: If it is not absolute, not below `client`, or has a `..`, a NUL or an overlong name.
        """
        return _below(path, self.client)

    def from_sandbox(self, path: str, cwd: Relative) -> Relative:
        """Read a path as code in the sandbox prints it; relative ones are below `cwd`.

        Raises:
            OutsideTenantError: As `from_client`.
        """
        return _below(path if path.startswith("/") else f"{self.sandbox}/{cwd}/{path}", self.sandbox)

    def to_client(self, path: Relative) -> str:
        """The path as the client sees it."""
        return str(self.client / path)

    def to_sandbox(self, path: Relative) -> str:
        """The path as code in the tenant's sandbox sees it."""
        return str(self.sandbox / path)

    def to_client_text(self, text: str) -> str:
        """Replace the sandbox's prefix in a text that goes back to the client."""
        return _prefix(f"{self.sandbox}/").sub(lambda _: f"{self.client}/", text)

    def to_sandbox_text(self, text: str, mentioned: dict[str, Relative]) -> str:
        """Replace client paths that the request listed, so that the model reads paths its code can open."""
        if not mentioned:
            return text
        # All at once and the longest first: what was put in must not be replaced again.
        paths = "|".join(re.escape(path) for path in sorted(mentioned, key=len, reverse=True))
        return re.sub(f"{_NOT_INSIDE}(?:{paths})", lambda found: self.to_sandbox(mentioned[found[0]]), text)

    def engine_url(self, below_root: Relative) -> str:
        """The `file://` URL of a path below the volume's root; needs `media_root`."""
        return f"file://{PurePosixPath(self.media_root) / below_root}"


@lru_cache(maxsize=64)
def _prefix(prefix: str) -> re.Pattern[str]:
    return re.compile(_NOT_INSIDE + re.escape(prefix))


def job_folder(job_id: str) -> Relative:
    """The folder of one job, below the tenant's folder."""
    return JOBS / job_id


def job_output(job_id: str) -> Relative:
    """Where a job's code writes, below the tenant's folder."""
    return job_folder(job_id) / "output"


def _below(path: str, prefix: PurePosixPath) -> Relative:
    try:
        raw = path.encode()
    except UnicodeEncodeError as error:  # Lone surrogates from JSON escapes.
        raise OutsideTenantError("not valid Unicode") from error
    if b"\0" in raw or len(raw) > MAX_PATH_BYTES:
        raise OutsideTenantError("NUL or too long")
    if not path.startswith("/"):
        raise OutsideTenantError("not absolute")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise OutsideTenantError("'..' or an overlong name")
    above = list(prefix.parts[1:])
    if parts[: len(above)] != above or len(parts) == len(above):
        raise OutsideTenantError(f"not below {prefix}")
    return Relative(*parts[len(above) :])
