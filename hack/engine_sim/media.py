"""Images of a request: fetching them as vLLM does, and the processor cache keyed by `uuid` or content."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import UnidentifiedImageError

from hack.engine_sim.errors import ApiError
from hack.engine_sim.tokens import AspectError, image_tokens
from hack.engine_sim.vision import ImageFacts, look

BYTES_PER_TOKEN = 32 * 32 * 3 * 2 * 4  # what the processor keeps of an image: two frames of float32


@dataclass(frozen=True)
class Item:
    """One image ready for the prompt.

    Attributes:
        key: what identifies it in the caches: the request's `uuid`, else a hash of its content.
        facts: what it shows.
        tokens: its length in the prompt, without the two marks around it.
    """

    key: str
    facts: ImageFacts
    tokens: int


class MediaCache:
    """The processor cache: least recently used out first, bounded in bytes; counts queries and hits."""

    def __init__(self, capacity_bytes: int):
        self._capacity = capacity_bytes
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._size = 0
        self.queries = 0
        self.hits = 0

    def get(self, key: str) -> Item | None:
        """Return the image under a key and mark it as used, or None."""
        self.queries += 1
        item = self._items.get(key)
        if item is not None:
            self.hits += 1
            self._items.move_to_end(key)
        return item

    def put(self, item: Item) -> None:
        """Remember an image, forgetting the longest unused ones when there is no room."""
        size = item.tokens * BYTES_PER_TOKEN
        if size > self._capacity or item.key in self._items:
            return
        self._items[item.key] = item
        self._size += size
        while self._size > self._capacity:
            self._size -= self._items.popitem(last=False)[1].tokens * BYTES_PER_TOKEN

    def clear(self) -> None:
        """Forget all images."""
        self._items.clear()
        self._size = 0


def fetch(url: str, media_root: Path | None) -> bytes:
    """Return the bytes behind a `data:` or `file:` URL.

    Raises:
        ApiError: 400 with vLLM's text.
        FileNotFoundError: when the file is not there (vLLM lets this one through as a 500).
    """
    if media_root is not None:
        _check_root(media_root)
    parts = urlsplit(url)
    if parts.scheme == "data":
        return _decode_data_url(parts.path)
    if parts.scheme == "file":
        return _read_file(parts.netloc + parts.path, media_root)
    if parts.scheme in ("http", "https"):
        raise ApiError("The engine simulator does not fetch images over HTTP: send a data or file URL.")
    raise ApiError("The URL must be either a HTTP, data or file URL.")


def _check_root(media_root: Path) -> None:
    """Refuse any picture where the command line names no folder: vLLM looks at it with a request, not at the start."""
    flag = "Invalid `--allowed-local-media-path`"
    if not media_root.exists():
        raise ApiError(f"{flag}: The path {media_root} does not exist.")
    if not media_root.is_dir():
        raise ApiError(f"{flag}: The path {media_root} must be a directory.")


def _decode_data_url(path: str) -> bytes:
    head, comma, content = path.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ApiError("Only base64 data URLs are supported for now.")
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ApiError(f"Failed to load image: {error}") from error


def _read_file(path: str, media_root: Path | None) -> bytes:
    if media_root is None:
        raise ApiError("Cannot load local files without `--allowed-local-media-path`.")
    named = Path(url2pathname(path))
    if media_root not in named.resolve().parents:
        raise ApiError(f"The file path {named} must be a subpath of `--allowed-local-media-path {media_root}`.")
    return named.read_bytes()


def load(url: str, uuid: str | None, media_root: Path | None, cache: MediaCache) -> Item:
    """Return the image of one content part, from the cache where its uuid or content was seen before.

    Raises:
        ApiError: when it cannot be fetched, decoded or processed.
        FileNotFoundError: when a `file:` URL leads nowhere.
    """
    if uuid is not None:
        known = cache.get(uuid)
        if known is not None:
            return known
    data = fetch(url, media_root)
    key = uuid if uuid is not None else hashlib.sha256(data).hexdigest()
    if uuid is None:
        known = cache.get(key)
        if known is not None:
            return known
    item = Item(key, *_measure(data))
    cache.put(item)
    return item


def _measure(data: bytes) -> tuple[ImageFacts, int]:
    try:
        facts = look(data)
    except UnidentifiedImageError as error:
        raise ApiError("Failed to load image: cannot identify image file <_io.BytesIO object>") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise ApiError(f"Failed to load image: {error}") from error
    try:
        return facts, image_tokens(facts.width, facts.height)
    except AspectError as error:
        size = f"{facts.width}x{facts.height}"
        raise ApiError(f"Failed to apply Qwen3VLProcessor on data={{'images': [<PIL.Image {size}>]}}") from error


def recall(uuid: str | None, index: int, cache: MediaCache) -> Item:
    """Return the image sent as a `uuid` alone; `index` is its place in the request.

    Raises:
        ApiError: 400 `Cache miss`, when it was not seen or no longer is remembered.
    """
    item = cache.get(uuid) if uuid is not None else None
    if item is None:
        raise ApiError(f"Cache miss for image at index {index} but data is not provided.")
    return item
