"""Messages to prompt: checking content parts and rendering the Qwen3-VL-Thinking chat template as tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hack.engine_sim.errors import ApiError, too_many_items
from hack.engine_sim.flags import ServeOptions
from hack.engine_sim.media import Item, MediaCache, load, recall
from hack.engine_sim.tokens import THINK_END, split_text
from hack.engine_sim.versions import Behaviour

IMAGE_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
_PAD = "<|image_pad|>"


@dataclass(frozen=True)
class ImageRef:
    """An image part as it came: the URL's kind (`data`, `file`, `uuid`, ...), the URL (data shortened) and its uuid."""

    kind: str
    url: str
    uuid: str | None


@dataclass(frozen=True)
class Turn:
    """One message, its images in place of `<|image_pad|>` marks in the text."""

    role: str
    text: str
    reasoning: str
    images: tuple[Item, ...]


@dataclass
class Conversation:
    """A request's messages, read: turns in order, and how each image was sent."""

    turns: list[Turn] = field(default_factory=list)
    refs: list[ImageRef] = field(default_factory=list)

    @property
    def images(self) -> list[Item]:
        """All images in order."""
        return [image for turn in self.turns for image in turn.images]


def read_messages(
    messages: list[dict[str, Any]], options: ServeOptions, behaviour: Behaviour, cache: MediaCache
) -> Conversation:
    """Check the messages and load their images.

    Raises:
        ApiError: 400 for parts that vLLM refuses.
        FileNotFoundError: when a `file:` image is not there.
    """
    if not messages:
        raise ApiError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    _check_limits(messages, options)
    conversation = Conversation()
    for message in messages:
        conversation.turns.append(_read_turn(message, conversation, options, behaviour, cache))
    return conversation


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part if isinstance(part, dict) else {"type": "text", "text": str(part)} for part in content]


def _check_limits(messages: list[dict[str, Any]], options: ServeOptions) -> None:
    kinds = [part.get("type") for message in messages for part in _parts(message)]
    for modality, limit in (("image", options.image_limit), ("video", options.video_limit)):
        if kinds.count(f"{modality}_url") > limit:
            raise too_many_items(limit, modality)
    if "video_url" in kinds:
        raise ApiError("The engine simulator does not read videos.")


def _read_turn(
    message: dict[str, Any],
    conversation: Conversation,
    options: ServeOptions,
    behaviour: Behaviour,
    cache: MediaCache,
) -> Turn:
    text, images = "", []
    for part in _parts(message):
        kind = part.get("type")
        if kind == "text":
            text += str(part.get("text", ""))
        elif kind == "image_url":
            images.append(_read_image(part, conversation, options, cache))
            text += IMAGE_MARK
        else:
            raise ApiError(f"Unknown part type: {kind}")
    return Turn(str(message["role"]), text, _history_reasoning(message, behaviour), tuple(images))


def _read_image(part: dict[str, Any], conversation: Conversation, options: ServeOptions, cache: MediaCache) -> Item:
    uuid = part.get("uuid")
    source = part.get("image_url")
    url = source.get("url") if isinstance(source, dict) else source
    index = len(conversation.refs)
    if url is None:
        conversation.refs.append(ImageRef("uuid", "", uuid))
        return recall(uuid, index, cache)
    kind = url.split(":", 1)[0] if ":" in url else "path"
    shown = f"data: ({len(url)} characters)" if kind == "data" else url
    conversation.refs.append(ImageRef(kind, shown, uuid))
    return load(url, uuid, options.media_root, cache)


def _history_reasoning(message: dict[str, Any], behaviour: Behaviour) -> str:
    reasoning = message.get("reasoning")
    old_name_read = behaviour.release < (0, 16, 0) or behaviour.release >= (0, 22, 1)
    if reasoning is None and old_name_read:
        reasoning = message.get("reasoning_content")
    return reasoning if isinstance(reasoning, str) else ""


def render(conversation: Conversation) -> str:
    """Return the prompt as text, images still one mark each.

    Thinking of assistant turns is kept only after the last user message that is not exactly one `<tool_response>`.
    """
    turns = conversation.turns
    last_query = max((at for at, turn in enumerate(turns) if _is_query(turn)), default=len(turns) - 1)
    out = ""
    for at, turn in enumerate(turns):
        if turn.role == "tool":
            first = at == 0 or turns[at - 1].role != "tool"
            last = at == len(turns) - 1 or turns[at + 1].role != "tool"
            out += "<|im_start|>user" if first else ""
            out += f"\n<tool_response>\n{turn.text}\n</tool_response>"
            out += "<|im_end|>\n" if last else ""
        elif turn.role == "assistant":
            out += _render_assistant(turn, keep=at > last_query, is_last=at == len(turns) - 1)
        else:
            out += f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n"
    return out + "<|im_start|>assistant\n<think>\n"


def _is_query(turn: Turn) -> bool:
    wrapped = turn.text.startswith("<tool_response>") and turn.text.endswith("</tool_response>")
    return turn.role == "user" and not wrapped


def _render_assistant(turn: Turn, *, keep: bool, is_last: bool) -> str:
    reasoning, content = turn.reasoning, turn.text
    if not reasoning and THINK_END in content:
        reasoning = content.split(THINK_END)[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
        content = content.split(THINK_END)[-1].lstrip("\n")
    if keep and (is_last or reasoning):
        thought = reasoning.strip("\n")
        return f"<|im_start|>assistant\n<think>\n{thought}\n</think>\n\n" + content.lstrip("\n") + "<|im_end|>\n"
    return f"<|im_start|>assistant\n{content}<|im_end|>\n"


def tokenize(conversation: Conversation) -> tuple[list[int], int]:
    """Return the prompt's tokens, images expanded, and how many there are with each image counted as one.

    An image's tokens are numbers made from its cache key, so that equal numbers mean equal images.
    """
    images = iter(conversation.images)
    tokens: list[int] = []
    pads = 0
    for token in split_text(render(conversation)):
        image = next(images, None) if token.text == _PAD else None
        if image is None:
            tokens.append(token.id)
            continue
        pads += image.tokens - 1
        tokens += [-abs(hash(image.key)) - 1] * image.tokens
    return tokens, len(tokens) - pads
