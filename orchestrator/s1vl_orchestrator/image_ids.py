"""The ids of pictures that jobs made, as they stand in URLs. Pure.

An id says where the picture lies and what it is, `JOB.DIGEST.PATH`, so nothing has to be remembered anywhere: every
instance serves what any other one made, a restart forgets nothing, and the volume alone decides what there still is.
It grants nothing either: it leads below the output folder of one job of the tenant whose key the request has, and who
makes up an id gets no further than that. With the digest in it an id stands for the same bytes for ever; when code
writes over its file, the picture is gone and not another one.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from s1vl_orchestrator.paths import JOBS, MAX_NAME_BYTES, MAX_PATH_BYTES, Relative, job_output

IMAGES_URL = "/v1/images"
JOB_ID = re.compile(r"[0-9a-f]{24}")
_DIGEST_CHARS = 32
"""Half of a SHA-256: as good as all of it to tell pictures apart."""
_ID = re.compile(
    rf"({JOB_ID.pattern})\.([0-9a-f]{{{_DIGEST_CHARS}}})\.([A-Za-z0-9_-]{{1,{MAX_PATH_BYTES * 4 // 3 + 3}}})"
)


class NoSuchIdError(ValueError):
    """What is no id of a picture; why is nobody's business."""


@dataclass(frozen=True)
class ImageName:
    """What an id says: the file below the tenant's folder, and how its SHA-256 begins (hex)."""

    file: Relative
    digest: str


def image_id(file: Relative, sha256: str) -> str:
    """The id of a picture in a job's output folder. `file` is below the tenant's folder."""
    job_id = file.relative_to(JOBS).parts[0]
    path = str(file.relative_to(job_output(job_id))).encode()
    return f"{job_id}.{sha256[:_DIGEST_CHARS]}.{urlsafe_b64encode(path).decode().rstrip('=')}"


def parse_image_id(text: str) -> ImageName:
    """Read an id. Each picture has exactly one.

    Raises:
        NoSuchIdError: If it is none, whatever the reason.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise NoSuchIdError
    job_id, digest, encoded = found.groups()
    try:
        path = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError as error:
        raise NoSuchIdError from error
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > MAX_NAME_BYTES for part in parts) or "\0" in path:
        raise NoSuchIdError
    file = job_output(job_id).joinpath(*parts)
    if image_id(file, digest) != text:
        raise NoSuchIdError
    return ImageName(file, digest)
