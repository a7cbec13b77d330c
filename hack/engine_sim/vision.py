"""What the simulator "sees" in an image: plain statistics of its pixels, no model."""

from __future__ import annotations

import colorsys
import io
from collections import Counter
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageStat

MAX_LOOK_PIXELS = 4_000_000
MARK_SATURATION = 120  # of 255, with a brightness of at least MARK_VALUE: what counts as a coloured mark
MARK_VALUE = 60
MIN_MARK_SHARE = 0.0005
_HUES = ((15, "red"), (45, "orange"), (68, "yellow"), (165, "green"), (200, "cyan"), (262, "blue"), (292, "purple"),
         (338, "magenta"), (360, "red"))  # fmt: skip

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image.

    Attributes:
        width: in pixels, as received.
        height: in pixels, as received.
        mean: mean colour.
        dominant: name of the commonest colour.
        mark: mean colour of the saturated pixels, or None when there are next to none.
        mark_share: the part of all pixels that is saturated, 0 to 1.
        mark_centre: where they lie on average, as parts of width and height, or None.
    """

    width: int
    height: int
    mean: Rgb
    dominant: str
    mark: Rgb | None
    mark_share: float
    mark_centre: tuple[float, float] | None


def colour_name(red: float, green: float, blue: float) -> str:
    """Return the everyday name of a colour given as 0 to 255 each."""
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    if value < 0.15:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.88 else "grey"
    if 15 < hue * 360 <= 45 and value < 0.6:
        return "brown"
    return next(name for limit, name in _HUES if hue * 360 <= limit)


def place_name(x: float, y: float) -> str:
    """Return where a point lies, `upper left` to `lower right`, from its parts of width and height (0 to 1)."""
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"{row} {column}".strip() or "centre"


def look(data: bytes) -> ImageFacts:
    """Decode an image and measure it.

    Raises:
        OSError: when it cannot be decoded (PIL.UnidentifiedImageError is one).
    """
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
        opened.load()
        image = _on_white(opened)
    if width * height > MAX_LOOK_PIXELS:
        image = image.reduce(int((width * height / MAX_LOOK_PIXELS) ** 0.5) + 1)
    mark, share, centre = _mark(image)
    return ImageFacts(width, height, _mean(image, None), _dominant(image), mark, share, centre)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _mean(image: Image.Image, mask: Image.Image | None) -> Rgb:
    red, green, blue = (round(value) for value in ImageStat.Stat(image, mask).mean[:3])
    return red, green, blue


def _dominant(image: Image.Image) -> str:
    small = image.resize((48, 48), Image.Resampling.BOX)
    raw = small.tobytes()
    names = Counter(colour_name(*raw[at : at + 3]) for at in range(0, len(raw), 3))
    return names.most_common(1)[0][0]


def _mark(image: Image.Image) -> tuple[Rgb | None, float, tuple[float, float] | None]:
    _, saturation, value = image.convert("HSV").split()
    strong = saturation.point([255 if level >= MARK_SATURATION else 0 for level in range(256)])
    bright = value.point([255 if level >= MARK_VALUE else 0 for level in range(256)])
    mask = ImageChops.multiply(strong, bright)
    box = mask.getbbox()
    share = ImageStat.Stat(mask).mean[0] / 255
    if box is None or share < MIN_MARK_SHARE:
        return None, share, None
    centre = (box[0] + box[2]) / 2 / image.width, (box[1] + box[3]) / 2 / image.height
    return _mean(image, mask), share, centre
