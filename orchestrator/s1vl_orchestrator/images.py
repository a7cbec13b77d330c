"""Pictures: checked, measured and scaled for the model. The work is done in threads, never on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import math
import re
from array import array
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, ParamSpec, TypeVar

from PIL import Image, UnidentifiedImageError

from s1vl_orchestrator.budget import AspectTooExtremeError, copy_size

P = ParamSpec("P")
T = TypeVar("T")

# The header's size is checked by us, with a limit of our own, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MIME_TYPES = {name: f"image/{name.lower()}" for name in FORMATS} | {"PPM": "image/x-portable-anymap"}
SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tiff",
    "PPM": ".ppm",
}
MAX_INPUT_PIXELS = 100_000_000
MAX_INPUT_BYTES = 64 * 1024 * 1024
MAX_MADE_PIXELS = 50_000_000
MAX_MADE_BYTES = 20 * 1024 * 1024

_DATA_URL = re.compile(r"data:(image/[\w.+-]+)?(;[\w=.+-]+)*;base64,", re.IGNORECASE)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's orientation; from `_ON_ITS_SIDE` on, width and height change places."""
_ON_ITS_SIDE = 5
_ERROR_CHARS = 120
_SAMPLES = 1_000_000
_VERBATIM = {"PNG": {"RGB", "L"}, "JPEG": {"RGB", "L"}}
_JPEG_QUALITY = 95
_THUMBNAIL_QUALITY = 85


class ImageError(ValueError):
    """A picture that cannot be used; the message says why, with numbers."""


@dataclass(frozen=True)
class ModelCopy:
    """What the model sees of a picture.

    Attributes:
        content: The encoded copy (the picture's own bytes when they can be sent as they are).
        suffix: File name suffix of `content`.
        width: px, as shown.
        height: px, as shown.
        sha256: Hex digest of `content`.
    """

    content: bytes
    suffix: str
    width: int
    height: int
    sha256: str

    @property
    def mime(self) -> str:
        """The MIME type of `content`."""
        return "image/jpeg" if self.suffix == ".jpg" else "image/png"


@dataclass(frozen=True)
class Picture:
    """A picture that was decoded once, successfully.

    Attributes:
        width: px of the file, as code that opens it sees it.
        height: px of the file.
        suffix: The usual file name suffix of its format.
        sha256: Hex digest of the file's bytes.
        rotated: EXIF says that viewers must turn it; the model's copy is turned.
        copy: The model's copy.
    """

    width: int
    height: int
    suffix: str
    sha256: str
    rotated: bool
    copy: ModelCopy


class Workers:
    """A few threads for pictures and files. Their number bounds how many pictures are in memory as pixels at once."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in one of the threads."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # A thread cannot be stopped. What tidies up after a cancelled job must not overtake it.
            await asyncio.wait([work])
            raise

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def decode_data_url(url: str) -> bytes:
    """The bytes of a base64 data URL.

    Raises:
        ImageError: If it is another kind of URL, too large, or broken base64.
    """
    start = _DATA_URL.match(url)
    if start is None:
        raise ImageError(
            "image_url.url must be a data URL like data:image/png;base64,...; files go into image_path_list"
        )
    encoded = url[start.end() :]
    if len(encoded) * 3 // 4 > MAX_INPUT_BYTES + 3:
        raise ImageError(f"the picture is larger than {MAX_INPUT_BYTES} bytes")
    try:
        content = b64decode("".join(encoded.split()), validate=True)
    except (Base64Error, ValueError) as error:
        raise ImageError("the data URL is not valid base64") from error
    if not content:
        raise ImageError("the data URL is empty")
    return content


def read_picture(content: bytes, model_pixels: int, max_pixels: int) -> Picture:
    """Decode a picture and make the model's copy of it: first frame, upright, RGB on white, at most `model_pixels`.

    Raises:
        ImageError: If it is no picture, truncated, over `max_pixels`, or too long and thin for the model.
    """
    with _opened(io.BytesIO(content), max_pixels) as image:
        return _read(image, content, model_pixels)


def identify(file: IO[bytes], max_pixels: int) -> tuple[str, str]:
    """The MIME type and the usual file name suffix of a picture, from its own header.

    Raises:
        ImageError: If it is no picture, or over `max_pixels`.
    """
    with _opened(file, max_pixels) as image:
        return MIME_TYPES[_format(image)], SUFFIXES[_format(image)]


def thumbnail(file: IO[bytes], side: int, max_pixels: int) -> tuple[bytes, str]:
    """A small copy that fits into a square of `side` px, as the model saw the picture; never larger than the picture.

    A JPEG's is a JPEG. All else is drawn with sharp lines as often as not, and becomes a PNG.

    Returns:
        The encoded copy and its MIME type.

    Raises:
        ImageError: As `read_picture`.
    """
    with _opened(file, max_pixels) as image:
        suffix = ".jpg" if _format(image) == "JPEG" else ".png"
        orientation = _orientation(image)
        image.draft("RGB", (side * 2, side * 2))
        small = _to_rgb(image)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        content = _encode(_upright(small, orientation), suffix, _THUMBNAIL_QUALITY)
        return content, "image/jpeg" if suffix == ".jpg" else "image/png"


@contextlib.contextmanager
def _opened(file: IO[bytes], max_pixels: int) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(*image.size, max_pixels)
            yield image
    except (ImageError, MemoryError):
        raise
    except AspectTooExtremeError as error:
        raise ImageError(str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture that can be decoded (known are {', '.join(FORMATS)})") from error
    except Exception as error:  # Decoders raise anything on hostile bytes.
        why = f"{type(error).__name__}: {error}"[:_ERROR_CHARS].encode("ascii", "replace").decode()
        raise ImageError(f"not a picture that can be decoded ({why})") from error


def _read(image: Image.Image, content: bytes, model_pixels: int) -> Picture:
    width, height = image.size
    file_format = _format(image)
    orientation = _orientation(image)
    rotated = orientation in _TURNS
    upright = (height, width) if orientation >= _ON_ITS_SIDE else (width, height)
    target = copy_size(*upright, model_pixels)
    shrink = target[0] * target[1] < upright[0] * upright[1] and width * height > model_pixels
    as_is = (
        not rotated
        and not shrink
        and image.mode in _VERBATIM.get(file_format, ())
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
    )
    if shrink and file_format == "JPEG" and not rotated:
        image.draft("RGB", (target[0] * 2, target[1] * 2))  # Decodes at a fraction of the size: faster, less memory.
    elif as_is and file_format == "JPEG":
        image.draft(image.mode, (1, 1))  # All of it is read, so that damage shows, but few px are computed.
    image.seek(0)
    image.load()  # Truncated files fail here.
    if as_is:
        copy = _copy(content, SUFFIXES[file_format], width, height)
    else:
        shown = _upright(_to_rgb(image), orientation)
        if shrink:
            shown = shown.resize(target, Image.Resampling.LANCZOS)
        suffix = ".jpg" if file_format == "JPEG" else ".png"
        copy = _copy(_encode(shown, suffix, _JPEG_QUALITY), suffix, *shown.size)
    return Picture(width, height, SUFFIXES[file_format], hashlib.sha256(content).hexdigest(), rotated, copy)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1 or width * height > max_pixels:
        raise ImageError(f"{width}x{height} px; between 1 and {max_pixels} px are taken")


def _format(image: Image.Image) -> str:
    # A JPEG with further exposures behind it, as phones make them, is another format to Pillow.
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def _orientation(image: Image.Image) -> int:
    # Pillow turns a TIFF by itself, here and in the sandbox.
    found = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and found in _TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _encode(image: Image.Image, suffix: str, quality: int) -> bytes:
    # Colour profiles, EXIF and texts of the original would be written too: a megabyte each, and untrue by now.
    image.info = {}
    out = io.BytesIO()
    if suffix == ".jpg":
        image.save(out, "JPEG", quality=quality)
    else:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _copy(content: bytes, suffix: str, width: int, height: int) -> ModelCopy:
    return ModelCopy(content, suffix, width, height, hashlib.sha256(content).hexdigest())


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # 16 bits and floats: a plain conversion would clip everything to white.
        numbers = image.convert("F")
        low, high = _extremes(numbers)
        scale = 255 / (high - low) if high > low else 0.0
        return numbers.point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _extremes(numbers: Image.Image) -> tuple[float, float]:
    """The least and the greatest number, of those that are one: measured data has holes of NaN, and infinities."""
    low, high = (float(value) for value in numbers.getextrema())  # type: ignore[arg-type]
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    step = math.ceil(math.sqrt(numbers.width * numbers.height / _SAMPLES))
    size = (max(1, numbers.width // step), max(1, numbers.height // step))
    samples = array("f", numbers.resize(size, Image.Resampling.NEAREST).tobytes())
    finite = [value for value in samples if math.isfinite(value)]
    return min(finite, default=0.0), max(finite, default=0.0)
