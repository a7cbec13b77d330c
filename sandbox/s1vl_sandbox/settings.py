"""What an administrator may set, all of it through ``S1VL_SANDBOX_*`` environment variables."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1024**3


def _sha256_or_empty(value: str) -> str:
    value = value.strip().lower()
    if value and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("must be the 64 hex digits of a SHA-256, or empty for no authentication")
    return value


class Settings(BaseSettings):
    """Settings of the server. Only the hash of the API key ever enters this process.

    Attributes:
        api_key_sha256: Hex SHA-256 of the API key that `/v1/*` asks for; empty means open (a laptop).
        host: Address to listen on.
        port: TCP port to listen on.
        max_sessions: How many sessions may be open at once; one kernel each.
        warm_kernels: Kernels kept started ahead of need. At least one, because readiness runs code in it.
        session_timeout_seconds: A session unused for so long is closed. AIO Sandbox documents 30 minutes.
        workspace: Where the tenant's images are mounted; kernels may read it.
        kernel_memory_bytes: Address space of one kernel process (RLIMIT_AS); 0 leaves it unlimited.
        kernel_file_bytes: Largest file a kernel may write (RLIMIT_FSIZE); less than its folder may hold, so that a cell
            that writes without end gets an error and keeps its kernel.
        kernel_open_files: Open file descriptors of one kernel process (RLIMIT_NOFILE).
        kernel_cpu_seconds: CPU time of one kernel process (RLIMIT_CPU).
        kernels: "child" has the server start the kernel host; "separate" has it wait for one in another container.
        require_isolation: "strict" refuses to start where a protection of the kernels does not hold.
        state_dir: Folder for sockets and working folders of kernels; with a separate host the one folder both share.
        log_format: One JSON object a line, or text for people.
    """

    model_config = SettingsConfigDict(env_prefix="S1VL_SANDBOX_", extra="ignore")

    api_key_sha256: Annotated[str, AfterValidator(_sha256_or_empty)] = ""
    host: str = "0.0.0.0"  # noqa: S104  (a pod's server must be reachable on the pod's address)
    port: int = Field(8080, ge=1, le=65535)
    max_sessions: int = Field(8, ge=1, le=512)
    warm_kernels: int = Field(2, ge=1, le=64)
    session_timeout_seconds: int = Field(1800, ge=1)
    workspace: str = ""
    kernel_memory_bytes: int = Field(4 * GIB, ge=0)
    kernel_file_bytes: int = Field(GIB // 4, ge=1)
    kernel_open_files: int = Field(1024, ge=64)
    kernel_cpu_seconds: int = Field(3600, ge=1)
    kernels: Literal["child", "separate"] = "child"
    require_isolation: Literal["", "strict"] = ""
    state_dir: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()))
    log_format: Literal["json", "text"] = "json"
