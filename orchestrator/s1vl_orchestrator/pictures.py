"""A picture that a job made, taken out of the tenant's folder for its client."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from s1vl_orchestrator import files
from s1vl_orchestrator.image_ids import ImageName
from s1vl_orchestrator.images import MAX_MADE_BYTES, MAX_MADE_PIXELS, ImageError, identify, thumbnail

_IN_MEMORY_BYTES = 256 * 1024


class GoneError(Exception):
    """There is no such picture of the tenant (any more)."""


@dataclass(frozen=True)
class Found:
    """A picture's bytes, apart from the file: what is checked is what is sent, whatever the tenant's code does.

    Attributes:
        content: At its beginning; to be closed. Large ones are on disk: many slow clients must not cost memory.
        size: Bytes.
        mime: By its own header, never by its name.
        sha256: Hex digest of the whole picture, of a thumbnail's too.
        name: For whoever saves it, with the suffix of its format.
    """

    content: IO[bytes]
    size: int
    mime: str
    sha256: str
    name: str


def find(folder: Path, name: ImageName) -> Found:
    """Copy a picture out of the tenant's folder.

    Raises:
        GoneError: If there is no regular file, it is another one than the id says, or no picture.
        OSError: If the volume refuses.
    """
    content = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by who sends it, or in here
    try:
        sha256 = files.copy(folder, name.file, content, MAX_MADE_BYTES)
        if not sha256.startswith(name.digest):
            raise GoneError(name.file)  # noqa: TRY301 - one way out for whatever is wrong
        size = content.tell()
        mime, suffix = identify(content, MAX_MADE_PIXELS)
        content.seek(0)
    except (files.NotOursError, files.FileTooLargeError, ImageError) as error:
        content.close()
        raise GoneError(name.file) from error
    except BaseException:
        content.close()
        raise
    return Found(content, size, mime, sha256, name.file.stem + suffix)


def shrink(found: Found, side: int) -> Found:
    """A thumbnail in the picture's place, which is closed.

    Raises:
        GoneError: If it cannot be decoded after all.
    """
    with found.content as whole:
        try:
            small, mime = thumbnail(whole, side, MAX_MADE_PIXELS)
        except ImageError as error:
            raise GoneError(found.name) from error
    suffix = ".jpg" if mime == "image/jpeg" else ".png"
    return Found(BytesIO(small), len(small), mime, found.sha256, f"{Path(found.name).stem}_{side}{suffix}")
