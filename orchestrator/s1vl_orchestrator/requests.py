"""The body of `POST /process`, checked and brought into one form. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn, TypeVar
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationError,
)

from s1vl_orchestrator.errors import ApiError, ErrorCode

MAX_MESSAGES = 256
MAX_TEXT_CHARS = 400_000
MAX_TURNS = "Turns with code; the deployment's limit is the most."
DEADLINE = "From the request's arrival to its answer; the deployment's limit is the most."
MAX_DEPTH = 100
"""Of lists and objects within one another: what is read must also be written again, and Python recurses for both."""


def number(value: Any) -> Any:
    """Refuse what pydantic would take for a number and JSON Schema does not."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004  (pydantic reports a ValueError, and not a TypeError)
    return value


# As JSON Schema has them: 2 and 2.0 are whole numbers, but neither "2" nor true.
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Positive = Annotated[int, Field(ge=1, lt=2**31), BeforeValidator(number)]
Seconds = Annotated[Number, Field(ge=1)]


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


def _either_form(schema: dict[str, Any]) -> None:
    # Pydantic does not know that the two are not to be mixed, nor that what has a role is a message whatever it has.
    message, part = schema.pop("items")["oneOf"]
    schema["anyOf"] = [{"items": message}, {"items": {**part, "not": {"required": ["role"]}}}]


Item = Annotated[Annotated[Message, Tag("message")] | Annotated[Part, Tag("part")], Discriminator(_kind)]


class ProcessRequest(BaseModel):
    """The request. Fields that are not listed are ignored, as the model card's clients may send more."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Item] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="Content parts (text, image_url) or messages with roles, not both; with some text.",
        json_schema_extra=_either_form,
    )
    image_path_list: list[str] = Field(
        default=[],
        max_length=MAX_MESSAGES,
        description="Absolute paths as the client sees them. With as many embedded pictures as paths, the n-th path "
        "names the file of the n-th picture.",
    )
    max_turns: Positive | None = Field(default=None, description=MAX_TURNS)
    deadline_seconds: Seconds | None = Field(default=None, description=DEADLINE)
    stream: Flag = Field(default=False, description="Answer with server-sent events; as `?stream=true`.")
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
_SHOWN_CHARS = 200


def parse_body(body: bytes, model: type[M]) -> M:
    """Read a body.

    Raises:
        ApiError: `invalid_request` with the fields at fault.
    """
    try:
        raw = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
        _check_depth(raw, MAX_DEPTH)
        request = model.model_validate(raw)
        json.dumps(getattr(request, "metadata", None), ensure_ascii=False).encode()  # It must be possible to return it.
    except ValidationError as error:
        # Without the values: they may be pictures.
        found = [
            {"field": _field(item["loc"]), "problem": printable(item["msg"])}
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


def _field(location: tuple[int | str, ...]) -> str:
    """A field's name, short: it may be the client's own invention."""
    return printable(".".join(str(at) for at in location if at not in ("message", "part"))[:_SHOWN_CHARS])


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
