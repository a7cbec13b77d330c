"""The body of `POST /process`, checked and brought into one form. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from s1vl_orchestrator.errors import ApiError, ErrorCode

MAX_MESSAGES = 256
MAX_TEXT_CHARS = 400_000


class ImageUrl(BaseModel):
    """A picture: a base64 data URL, or a file of the tenant as `file:///path` or `/path`. Other fields are ignored."""

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
    stream: bool = Field(default=False, description="Answer with server-sent events; as `?stream=true`.")
    metadata: dict[str, Any] | None = Field(default=None, description="Returned as it came.")


@dataclass(frozen=True)
class Embedded:
    """Marks the place of the n-th embedded picture in a message."""

    index: int


@dataclass(frozen=True)
class Prompt:
    """A request's messages in one form.

    Attributes:
        messages: Roles with their texts and picture places; the last one is the user's.
        embedded: Where the pictures of those places are, in order: data URLs, `file://` URLs or client paths.
        paths: Client paths of pictures that the messages have no place for, in order.
    """

    messages: list[tuple[str, list[str | Embedded]]]
    embedded: list[str]
    paths: list[str]


@dataclass(frozen=True)
class JobRequest:
    """What a job is to do. `sampling` replaces the profile's, name by name; None means the deployment's limits."""

    prompt: Prompt
    max_turns: int | None = None
    deadline_seconds: float | None = None
    metadata: dict[str, Any] | None = None
    sampling: dict[str, Any] = field(default_factory=dict)


M = TypeVar("M", bound=BaseModel)


def parse_body(body: bytes, model: type[M]) -> M:
    """Read a body.

    Raises:
        ApiError: `invalid_request` with the fields at fault.
    """
    try:
        raw = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
        request = model.model_validate(raw)
        json.dumps(getattr(request, "metadata", None), ensure_ascii=False).encode()  # It must be possible to return it.
    except ValidationError as error:
        # Without the values: they may be pictures.
        found = [
            {"field": ".".join(str(at) for at in item["loc"] if at not in ("message", "part")), "problem": item["msg"]}
            for item in error.errors(include_input=False, include_url=False, include_context=False)[:20]
        ]
        first = found[0]
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"{first['field']}: {first['problem']}",
            {"errors": found, "param": first["field"]},
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {printable(reason)}") from error
    return request


def to_job(request: ProcessRequest) -> JobRequest:
    """Bring both forms of `messages` into one.

    Raises:
        ApiError: For a mixture of both, no text, no picture or too much text.
    """
    with_roles = [item for item in request.messages if isinstance(item, Message)]
    if with_roles and len(with_roles) != len(request.messages):
        raise ApiError(ErrorCode.INVALID_REQUEST, "messages must be content parts or messages with roles, not both.")
    if with_roles:
        conversation = [(message.role, message.content) for message in with_roles]
    else:
        conversation = [("user", [item for item in request.messages if not isinstance(item, Message)])]
    prompt = to_prompt(conversation, request.image_path_list)
    return JobRequest(prompt, request.max_turns, request.deadline_seconds, request.metadata)


def to_prompt(conversation: Sequence[tuple[str, str | list[Part]]], paths: list[str]) -> Prompt:
    """Take the pictures out of a conversation.

    Raises:
        ApiError: For no text, no picture, too much text, or a last message that is not the user's.
    """
    embedded: list[str] = []
    messages = [(role, parts_of(content, embedded)) for role, content in conversation]
    if messages[-1][0] != "user":
        raise ApiError(ErrorCode.INVALID_REQUEST, "The last message must be the user's.")
    if not check_text(messages):
        raise ApiError(ErrorCode.INVALID_REQUEST, "There is no text in messages.")
    if not embedded and not paths:
        raise ApiError(
            ErrorCode.NO_IMAGE, "There is no picture: embed one as image_url or name one in image_path_list."
        )
    return Prompt(messages, embedded, list(paths))


def check_text(messages: list[tuple[str, list[str | Embedded]]]) -> bool:
    """Whether there is any text. Raises ApiError `prompt_too_long` for more than any model reads."""
    texts = [part for _, content in messages for part in content if isinstance(part, str)]
    characters = sum(map(len, texts))
    if characters > MAX_TEXT_CHARS:
        raise ApiError(
            ErrorCode.PROMPT_TOO_LONG,
            f"messages have {characters} characters of text; {MAX_TEXT_CHARS} are taken.",
            {"characters": characters, "limit": MAX_TEXT_CHARS},
        )
    return any(text.strip() for text in texts)


def named_path(url: str) -> str | None:
    """The client path that an `image_url.url` names, None for a data URL.

    Raises:
        ApiError: `invalid_image` for any other URL: nothing is fetched.
    """
    if url.startswith("/"):
        return url
    scheme = url[:16].partition(":")[0].lower()
    if scheme == "data":
        return None
    if scheme == "file":
        host, slash, path = url[len("file://") :].partition("/")
        if url[:7].lower() == "file://" and slash and host in ("", "localhost"):
            return unquote(f"/{path}")
    raise ApiError(
        ErrorCode.INVALID_IMAGE,
        "image_url.url must be a data URL like data:image/png;base64,..., or name a file of yours as "
        "file:///path or /path. Other URLs are not fetched.",
        {"picture": printable(url[:100])},
    )


def printable(text: str) -> str:
    """Replace lone surrogates, which JSON's escapes can name and UTF-8 cannot carry."""
    return text.encode(errors="replace").decode()


def parts_of(content: str | list[Part], embedded: list[str]) -> list[str | Embedded]:
    """Texts and picture places of a content; the pictures are added to `embedded`."""
    found: list[str | Embedded] = []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, ImagePart):
            found.append(Embedded(len(embedded)))
            embedded.append(part.image_url if isinstance(part.image_url, str) else part.image_url.url)
        else:
            found.append(printable(part if isinstance(part, str) else part.text))
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
