"""A request's pictures: found, read, checked and counted, before anything is written anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from s1vl_orchestrator import files
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
from s1vl_orchestrator.requests import Prompt, named_path, printable

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


async def read_inputs(
    prompt: Prompt, paths: TenantPaths, workers: Workers, *, limit: int, pixels: Callable[[int], int]
) -> list[Input]:
    """Find and decode all pictures.

    With as many paths as embedded pictures, the n-th path names the n-th picture (the model card's client sends the
    same picture both ways): the file counts when it exists, else the embedded bytes. Otherwise they are different
    pictures, except where the bytes are equal.

    Args:
        prompt: Its `embedded` is emptied: the pictures need not be in memory twice.
        paths: The tenant's.
        workers: Threads.
        limit: Most pictures.
        pixels: Most px of each model's copy, for so many pictures.

    Raises:
        ApiError: `too_many_images`, `image_not_found` or `invalid_image`.
    """
    check_count(max(len(prompt.embedded), len(prompt.paths)), limit)
    found = await workers.run(_find, prompt, paths)
    prompt.embedded.clear()
    check_count(len(found), limit)
    inputs = []
    for number, item in enumerate(found, 1):
        try:
            picture = await workers.run(read_picture, item.content, pixels(len(found)), MAX_INPUT_PIXELS)
        except ImageError as error:
            raise _invalid(item.path or f"embedded picture {number}", error) from error
        content = item.content if item.file is None else None
        inputs.append(Input(picture, item.file, content, item.path, item.embedded))
    return inputs


def check_count(count: int, limit: int) -> None:
    """Raise `too_many_images` for more than the engine takes."""
    if count > limit:
        raise ApiError(
            ErrorCode.TOO_MANY_IMAGES,
            f"The request has {count} pictures; at most {limit} are taken.",
            {"images": count, "limit": limit},
        )


def _find(prompt: Prompt, paths: TenantPaths) -> list[_Found]:
    if len(prompt.embedded) == len(prompt.paths) and all(named_path(url) is None for url in prompt.embedded):
        return [
            _paired(at, url, path, paths)
            for at, (url, path) in enumerate(zip(prompt.embedded, prompt.paths, strict=True))
        ]
    pictures = [_embedded(number, url, paths) for number, url in enumerate(prompt.embedded, 1)]
    found: list[_Found] = []
    for path in prompt.paths:
        file = _read(path, paths)
        if file is None:
            raise _absent(path)
        # An embedded picture with the file's very bytes is that file.
        same = [at for at, picture in enumerate(pictures) if picture.content == file[1]]
        found.append(_Found(file[0], file[1], path, frozenset(same)))
    named = {at for item in found for at in item.embedded}
    for at, picture in enumerate(pictures):
        if at not in named:
            again = [
                other for other in range(at, len(pictures)) if picture.file and pictures[other].file == picture.file
            ]
            named.update(again)
            found.append(replace(picture, embedded=frozenset([at, *again])))
    return sorted(found, key=lambda item: min(item.embedded, default=len(pictures)))


def _paired(at: int, url: str, path: str, paths: TenantPaths) -> _Found:
    """The file that a path names, or the embedded picture where there is none; its base64 is not read otherwise."""
    file = _read(path, paths)
    if file is None:
        return replace(_embedded(at + 1, url, paths), embedded=frozenset([at]))
    return _Found(file[0], file[1], path, frozenset([at]))


def _embedded(number: int, url: str, paths: TenantPaths) -> _Found:
    """A picture that has a place in the messages: its own bytes, or a file."""
    path = named_path(url)
    if path is None:
        try:
            return _Found(None, decode_data_url(url), None, frozenset())
        except ImageError as error:
            raise _invalid(f"embedded picture {number}", error) from error
    file = _read(path, paths)
    if file is None:
        raise _absent(path)
    return _Found(file[0], file[1], path, frozenset())


def _absent(path: str) -> ApiError:
    return ApiError(ErrorCode.IMAGE_NOT_FOUND, NOT_FOUND.format(path=_shown(path)), {"path": _shown(path)})


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
