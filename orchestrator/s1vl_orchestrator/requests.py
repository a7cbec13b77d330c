"""The body of `POST /process`, checked and brought into one form. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from s1vl_orchestrator.errors import ApiError, ErrorCode

MAX_MESSAGES = 256
MAX_TEXT_CHARS = 400_000


class ImageUrl(BaseModel):
    """A picture as a base64 data URL."""

    url: str


class TextPart(BaseModel):
    """A text."""

    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    """A picture; the URL may be given directly or as `{"url": ...}`."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    """A message with a role, for those who send whole conversations."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]


def _kind(item: Any) -> str:
    return "message" if isinstance(item, Message) or (isinstance(item, dict) and "role" in item) else "part"


Item = Annotated[Annotated[Message, Tag("message")] | Annotated[Part, Tag("part")], Discriminator(_kind)]


class ProcessRequest(BaseModel):
    """The request. Fields that are not listed are ignored, as the model card's clients may send more."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Item] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="Content parts (text, image_url) or messages with roles."
    )
    image_path_list: list[str] = Field(
        default=[],
        max_length=MAX_MESSAGES,
        description="Absolute paths as the client sees them. With as many embedded pictures as paths, the n-th path "
        "names the file of the n-th picture.",
    )
    max_turns: int | None = Field(default=None, ge=1, description="At most the deployment's limit holds.")
    deadline_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    stream: bool = False
    metadata: dict[str, Any] | None = Field(default=None, description="Returned as it came.")


@dataclass(frozen=True)
class Embedded:
    """Marks the place of the n-th embedded picture in a message."""

    index: int


@dataclass(frozen=True)
class Prompt:
    """A request in one form.

    Attributes:
        messages: Roles with their texts and picture places; the last one is the user's.
        embedded: Data URLs of the embedded pictures, in order.
        paths: Client paths, in order.
    """

    messages: list[tuple[str, list[str | Embedded]]]
    embedded: list[str]
    paths: list[str]


def parse_body(body: bytes) -> ProcessRequest:
    """Read a body.

    Raises:
        ApiError: `invalid_request` with the fields at fault.
    """
    try:
        raw = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
        request = ProcessRequest.model_validate(raw)
        json.dumps(request.metadata, ensure_ascii=False).encode()  # It must be possible to return it.
    except ValidationError as error:
        # Without the values: they may be pictures.
        found = [
            {"field": ".".join(str(at) for at in item["loc"] if at not in ("message", "part")), "problem": item["msg"]}
            for item in error.errors(include_input=False, include_url=False, include_context=False)[:20]
        ]
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"{found[0]['field']}: {found[0]['problem']}", {"errors": found}
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {printable(reason)}") from error
    return request


def to_prompt(request: ProcessRequest) -> Prompt:
    """Bring both forms of `messages` into one.

    Raises:
        ApiError: For a mixture of both, no text, no picture, too much text, or a stream.
    """
    if request.stream:
        raise ApiError(ErrorCode.NOT_SUPPORTED, "stream is not supported yet: leave it out or set it to false.")
    with_roles = [item for item in request.messages if isinstance(item, Message)]
    if with_roles and len(with_roles) != len(request.messages):
        raise ApiError(ErrorCode.INVALID_REQUEST, "messages must be content parts or messages with roles, not both.")
    embedded: list[str] = []
    messages: list[tuple[str, list[str | Embedded]]] = []
    if with_roles:
        for message in with_roles:
            parts: list[Any] = [message.content] if isinstance(message.content, str) else list(message.content)
            messages.append((message.role, _parts(parts, embedded)))
        if messages[-1][0] != "user":
            raise ApiError(ErrorCode.INVALID_REQUEST, "The last message must be the user's.")
    else:
        messages.append(("user", _parts(list(request.messages), embedded)))
    texts = [part for _, content in messages for part in content if isinstance(part, str)]
    if not any(text.strip() for text in texts):
        raise ApiError(ErrorCode.INVALID_REQUEST, "There is no text in messages.")
    if sum(map(len, texts)) > MAX_TEXT_CHARS:
        raise ApiError(
            ErrorCode.PROMPT_TOO_LONG,
            f"messages have {sum(map(len, texts))} characters of text; {MAX_TEXT_CHARS} are taken.",
            {"characters": sum(map(len, texts)), "limit": MAX_TEXT_CHARS},
        )
    if not embedded and not request.image_path_list:
        raise ApiError(
            ErrorCode.NO_IMAGE, "There is no picture: embed one as image_url or name one in image_path_list."
        )
    return Prompt(messages, embedded, list(request.image_path_list))


def printable(text: str) -> str:
    """Replace lone surrogates, which JSON's escapes can name and UTF-8 cannot carry."""
    return text.encode(errors="replace").decode()


def _parts(parts: list[Any], embedded: list[str]) -> list[str | Embedded]:
    found: list[str | Embedded] = []
    for part in parts:
        if isinstance(part, ImagePart):
            found.append(Embedded(len(embedded)))
            embedded.append(part.image_url if isinstance(part.image_url, str) else part.image_url.url)
        else:
            text = part if isinstance(part, str) else part.text
            found.append(printable(text))
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
