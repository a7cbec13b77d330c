"""A request's pictures: found, read, checked and counted, before anything is written anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from s1vl_orchestrator import files
from s1vl_orchestrator.budget import ContextBudget
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.images import (
    MAX_INPUT_BYTES,
    MAX_INPUT_PIXELS,
    ImageError,
    Picture,
    Workers,
    decode_data_url,
    read_picture,
)
from s1vl_orchestrator.paths import OutsideTenantError, Relative, TenantPaths
from s1vl_orchestrator.requests import Prompt, printable

_SHOWN_CHARS = 300
NOT_FOUND = "There is no picture at {path}."


@dataclass(frozen=True)
class Input:
    """One distinct picture of a request.

    Attributes:
        picture: Decoded facts and the model's copy.
        file: The file below the tenant's folder, None for a picture that came embedded only.
        content: Bytes to write into the job's folder, None when there is a file.
        client_path: As the client wrote it, None when there is no file.
        embedded: Which embedded pictures it stands for.
    """

    picture: Picture
    file: Relative | None
    content: bytes | None
    client_path: str | None
    embedded: frozenset[int]


@dataclass(frozen=True)
class _Found:
    file: Relative | None
    content: bytes
    path: str | None
    embedded: frozenset[int]


async def read_inputs(prompt: Prompt, paths: TenantPaths, budget: ContextBudget, workers: Workers) -> list[Input]:
    """Find and decode all pictures.

    With as many paths as embedded pictures, the n-th path names the n-th picture (the model card's client sends the
    same picture both ways): the file counts when it exists, else the embedded bytes. Otherwise they are different
    pictures, except where the bytes are equal.

    Raises:
        ApiError: `too_many_images`, `image_not_found` or `invalid_image`.
    """
    check_count(max(len(prompt.embedded), len(prompt.paths)), budget)
    found = await workers.run(_find, prompt, paths)
    check_count(len(found), budget)
    pixels = budget.pixels_per_input(len(found))
    inputs = []
    for number, item in enumerate(found, 1):
        try:
            picture = await workers.run(read_picture, item.content, pixels, MAX_INPUT_PIXELS)
        except ImageError as error:
            raise _invalid(item.path or f"embedded picture {number}", error) from error
        content = item.content if item.file is None else None
        inputs.append(Input(picture, item.file, content, item.path, item.embedded))
    return inputs


def check_count(count: int, budget: ContextBudget) -> None:
    """Raise `too_many_images` for more than the engine takes."""
    if count > budget.images:
        raise ApiError(
            ErrorCode.TOO_MANY_IMAGES,
            f"The request has {count} pictures; at most {budget.images} are taken.",
            {"images": count, "limit": budget.images},
        )


def _find(prompt: Prompt, paths: TenantPaths) -> list[_Found]:
    embedded = []
    for number, url in enumerate(prompt.embedded, 1):
        try:
            embedded.append(decode_data_url(url))
        except ImageError as error:
            raise _invalid(f"embedded picture {number}", error) from error
    paired = len(embedded) == len(prompt.paths)
    found: list[_Found] = []
    for index, path in enumerate(prompt.paths):
        file = _read(path, paths)
        if file is not None:
            # Without a pairing, an embedded picture with the file's very bytes is that file.
            same = [at for at, content in enumerate(embedded) if content == file[1]]
            found.append(_Found(file[0], file[1], path, frozenset([index] if paired else same)))
        elif paired:
            found.append(_Found(None, embedded[index], None, frozenset([index])))
        else:
            raise ApiError(ErrorCode.IMAGE_NOT_FOUND, NOT_FOUND.format(path=_shown(path)), {"path": _shown(path)})
    named = {at for item in found for at in item.embedded}
    for at, content in enumerate(embedded):
        if at not in named:
            found.append(_Found(None, content, None, frozenset([at])))
    return sorted(found, key=lambda item: min(item.embedded, default=len(embedded)))


def _read(path: str, paths: TenantPaths) -> tuple[Relative, bytes] | None:
    try:
        file = files.resolve(paths.folder, paths.from_client(path))
        return file, files.read(paths.folder, file, MAX_INPUT_BYTES)
    except (OutsideTenantError, files.NotOursError):
        return None
    except files.FileTooLargeError as error:
        raise _invalid(path, error) from error


def _shown(path: str) -> str:
    """A path as it can be said in an answer: short, and without what UTF-8 does not have."""
    return printable(path if len(path) <= _SHOWN_CHARS else f"{path[:_SHOWN_CHARS]}...")


def _invalid(what: str, error: Exception) -> ApiError:
    return ApiError(ErrorCode.INVALID_IMAGE, f"{what}: {error}", {"picture": what})
