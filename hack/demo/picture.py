"""A made-up micrograph of 3840x2160 px with one small coloured mark whose colour and place are known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 3840, 2160
CELLS = 420
MARGIN = 160  # px between the mark and the picture's edge
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 38),
    "green": (30, 168, 62),
    "blue": (34, 74, 214),
    "yellow": (226, 204, 28),
    "magenta": (208, 36, 150),
    "cyan": (24, 184, 204),
}
# The lower edge carries the scale bar: no mark there.
_SCALE_BAR_TOP = HEIGHT - 180


@dataclass(frozen=True)
class Truth:
    """What the picture really shows.

    Attributes:
        colour: the mark's colour, a key of COLOURS.
        rgb: the colour as drawn, before noise.
        box: left, top, right, bottom of the mark in px of the file, right and bottom exclusive.
        size: width and height of the file in px.
    """

    colour: str
    rgb: tuple[int, int, int]
    box: tuple[int, int, int, int]
    size: tuple[int, int]


def write(path: Path, seed: int = 1, colour: str | None = None) -> Truth:
    """Draw the picture of a seed as PNG and return what it shows; equal arguments give equal files.

    Raises:
        ValueError: for a colour that is not in COLOURS.
        OSError: when the file cannot be written.
    """
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"colour {colour!r} is none of {', '.join(COLOURS)}")
    random = np.random.default_rng(seed)
    name = colour or list(COLOURS)[int(random.integers(len(COLOURS)))]
    canvas = Image.fromarray(_field(random))
    _draw_cells(ImageDraw.Draw(canvas), random)
    picture = _tint(np.asarray(canvas), random)
    box = _draw_mark(picture, random, COLOURS[name])
    _draw_axes(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "PNG", compress_level=3)
    return Truth(name, COLOURS[name], box, picture.size)


def _field(random: np.random.Generator) -> NDArray[np.uint8]:
    """Return an uneven grey background, (HEIGHT, WIDTH)."""
    coarse = Image.fromarray(random.integers(95, 150, (9, 16), dtype=np.uint8))
    smooth = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.array(smooth, dtype=np.uint8)


def _draw_cells(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    for _ in range(CELLS):
        x, y = int(random.integers(WIDTH)), int(random.integers(HEIGHT))
        wide, high = int(random.integers(28, 110)), int(random.integers(28, 110))
        body, wall = int(random.integers(70, 190)), int(random.integers(30, 90))
        draw.ellipse(
            (x - wide, y - high, x + wide, y + high), fill=body, outline=wall, width=int(random.integers(3, 9))
        )
        core = max(6, min(wide, high) // 3)
        shift = int(random.integers(-core, core + 1)) // 2
        draw.ellipse((x - core + shift, y - core, x + core + shift, y + core), fill=wall + 20)


def _tint(grey: NDArray[np.uint8], random: np.random.Generator) -> Image.Image:
    """Add grain and a faint stain, so that grey is not perfectly grey."""
    coarse = random.normal(0, 4, (HEIGHT // 2, WIDTH // 2)).astype(np.float32)
    base = grey.astype(np.float32) + coarse.repeat(2, axis=0).repeat(2, axis=1)  # 2x2 px: keeps the file small
    stained = np.stack([base * 1.03, base * 0.99, base * 1.06], axis=2)
    return Image.fromarray(np.clip(stained, 0, 255).astype(np.uint8))


def _draw_mark(
    picture: Image.Image, random: np.random.Generator, rgb: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    size = int(random.integers(24, 41))
    left = int(random.integers(MARGIN, WIDTH - MARGIN - size))
    top = int(random.integers(MARGIN, _SCALE_BAR_TOP - MARGIN - size))
    box = (left, top, left + size, top + size)
    ImageDraw.Draw(picture).ellipse((left, top, left + size - 1, top + size - 1), fill=rgb)
    grain = random.normal(0, 5, (size, size, 3))
    patch = np.asarray(picture.crop(box)).astype(np.float64) + grain
    picture.paste(Image.fromarray(np.clip(patch, 0, 255).astype(np.uint8)), box[:2])
    return box


def _draw_axes(picture: Image.Image) -> None:
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=44)
    for x in range(0, WIDTH, 240):
        draw.line((x, HEIGHT - 24, x, HEIGHT), fill="white", width=4)
    for y in range(0, HEIGHT, 240):
        draw.line((0, y, 24, y), fill="white", width=4)
    left, top = WIDTH - 620, _SCALE_BAR_TOP + 60
    draw.rectangle((left - 20, top - 70, left + 520, top + 40), fill=(16, 16, 16))
    draw.rectangle((left, top, left + 480, top + 16), fill="white")
    draw.text((left + 150, top - 62), "50 um", fill="white", font=font)


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
