"""`GET /v1/images/{id}`: the pictures that jobs made."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from s1vl_orchestrator.api.openapi import KEY_NEEDED, OpenAIError, errors
from s1vl_orchestrator.api.serving import tenant_of
from s1vl_orchestrator.api.streams import SEND_SECONDS
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.image_ids import ImageName, NoSuchIdError, parse_image_id
from s1vl_orchestrator.images import MIME_TYPES
from s1vl_orchestrator.jobs import as_api_error
from s1vl_orchestrator.pictures import Found, GoneError, find, shrink
from s1vl_orchestrator.service import Service

log = logging.getLogger(__name__)

MIN_SIDE, MAX_SIDE = 16, 2048
_CHUNK_BYTES = 256 * 1024
_CACHE_SECONDS = 7 * 24 * 3600
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

_ERRORS = (
    *(ErrorCode.INVALID_REQUEST, ErrorCode.UNAUTHORIZED, ErrorCode.IMAGE_NOT_FOUND),
    # The router's paths are one line: what goes on behind a line end is no endpoint.
    *(ErrorCode.NOT_FOUND, ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.NOT_CONFIGURED),
)
MODELS: tuple[type[BaseModel], ...] = (OpenAIError,)

router = APIRouter(prefix="/v1", tags=["Pictures"])

Side = Annotated[
    int | None,
    Query(ge=MIN_SIDE, le=MAX_SIDE, description="A copy that fits into a square of so many px, never enlarged."),
]


_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/images/{image_id:path}",
    operation_id="getImage",
    summary="A picture that a job made",
    openapi_extra={"security": KEY_NEEDED},
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": dict.fromkeys(MIME_TYPES.values(), _BINARY)},
        304: {"description": "The client has it (`If-None-Match`).", "content": {}},
        **errors(*_ERRORS, openai=True),
    },
)
async def image(image_id: str, request: Request, thumbnail: Side = None) -> Response:
    """The bytes of one entry of `images`, as long as they are kept. Inputs are not served."""
    service: Service = request.app.state.service
    tenant = tenant_of(request, service)
    place, workers = tenant.place, service.serving_workers
    try:
        name: ImageName = parse_image_id(image_id)
        async with tenant.serving:
            found = await workers.run(find, place.paths.folder, name)
            headers = _headers(found, thumbnail)
            if _known(request.headers.get("if-none-match", ""), headers["ETag"]):
                found.content.close()
                return Response(None, 304, {key: headers[key] for key in ("ETag", "Cache-Control", "Vary")})
            if thumbnail is not None:
                found = await workers.run(shrink, found, thumbnail)
                headers = _headers(found, thumbnail)
    except (NoSuchIdError, GoneError) as error:
        # One text for whatever is wrong with an id: another tenant's picture is one that does not exist.
        raise ApiError(ErrorCode.IMAGE_NOT_FOUND, "There is no such picture, or no longer.") from error
    except OSError as error:
        raise as_api_error(error, place.config, 0) from error
    return PictureResponse(found, headers)


router.head("/images/{image_id:path}", include_in_schema=False)(image)


class PictureResponse(Response):
    """Sends a picture piece by piece, at the client's pace, and closes it."""

    def __init__(self, found: Found, headers: dict[str, str]) -> None:
        super().__init__(None, 200, headers, found.mime)
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer the request."""
        with self._found.content as content:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while scope["method"] != "HEAD" and (piece := content.read(_CHUNK_BYTES)):
                    async with asyncio.timeout(SEND_SECONDS):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except (TimeoutError, OSError) as error:
                log.info("the client takes no more of a picture (%s)", type(error).__name__)


def _headers(found: Found, side: int | None) -> dict[str, str]:
    return {
        "Content-Length": str(found.size),
        "ETag": f'"{found.sha256}"' if side is None else f'"{found.sha256}-{side}"',
        # The bytes behind an id never change. A cache must not give them to who has another key.
        "Cache-Control": f"private, max-age={_CACHE_SECONDS}, immutable",
        "Vary": "Authorization, X-API-Key",
        "Content-Disposition": _disposition(found.name),
        # The bytes are a stranger's: nothing in them is to be run, whatever else than a picture they may be.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }


def _disposition(name: str) -> str:
    return f"inline; filename=\"{_UNSAFE.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"


def _known(if_none_match: str, etag: str) -> bool:
    given = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return etag in given or "*" in given
