"""What the model sees of pictures of all kinds."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from s1vl_orchestrator.images import ImageError, decode_data_url, read_picture

BUDGET = 2_621_440
CAP = 100_000_000


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def shown(content: bytes, pixels: int = BUDGET) -> Image.Image:
    picture = read_picture(content, pixels, CAP)
    copy = Image.open(io.BytesIO(picture.copy.content))
    assert copy.size == (picture.copy.width, picture.copy.height)
    return copy


@pytest.mark.parametrize(("file_format", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg")])
def test_plain_pictures_go_as_they_are(file_format: str, suffix: str) -> None:
    content = encoded(Image.new("RGB", (300, 200), "red"), file_format)
    picture = read_picture(content, BUDGET, CAP)
    assert (picture.copy.content, picture.copy.suffix) == (content, suffix)
    assert (picture.width, picture.height, picture.rotated) == (300, 200, False)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_large_pictures_are_scaled_to_the_budget(file_format: str) -> None:
    copy = shown(encoded(Image.new("RGB", (3840, 2160), (0, 128, 255)), file_format))
    assert copy.size == (2144, 1184)
    pixel = copy.convert("RGB").getpixel((100, 100))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, (0, 128, 255), strict=True)) <= 3


def test_8k_pictures_work() -> None:
    assert shown(encoded(Image.new("RGB", (7680, 4320)), "JPEG")).size == (2144, 1184)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied_for_the_model(orientation: int) -> None:
    image = Image.new("RGB", (300, 100), "blue")
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, "JPEG", exif=exif)
    picture = read_picture(content, BUDGET, CAP)
    assert picture.rotated
    assert (picture.width, picture.height) == (300, 100)
    assert shown(content).size == ((100, 300) if orientation >= 5 else (300, 100))


def test_alpha_is_laid_on_white() -> None:
    assert shown(encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0)))).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (64, 64), 0)
    assert shown(encoded(palette, "GIF", transparency=0)).getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_keep_their_contrast() -> None:
    image = Image.new("I;16", (64, 64), 1000)
    image.paste(3000, (0, 0, 32, 64))
    copy = shown(encoded(image))
    assert (copy.getpixel((5, 5)), copy.getpixel((60, 5))) == ((255, 255, 255), (0, 0, 0))


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert shown(content).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (encoded(Image.new("RGB", (500, 500)))[:-40], "not a picture"),
        (encoded(Image.new("RGB", (500, 500), "red"), "JPEG")[:400], "not a picture"),
        (encoded(Image.new("1", (20_000, 6_000))), "20000x6000 px"),
        (encoded(Image.new("RGB", (1, 300))), "aspect ratio"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
    ],
)
def test_what_cannot_be_used(content: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read_picture(content, BUDGET, CAP)


GOOD_URLS = [
    "data:image/png;base64,aGk=",
    "data:;base64,aGk=",
    "DATA:image/PNG;charset=x;BASE64,aG\nk=",
    "data:image/x;base64,aGk=",
]
BAD_URLS = ["", "data:", "data:image/png,hi", "data:image/png;base64,h", "data:text/html;base64,aGk="]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_data_urls(url: str) -> None:
    assert decode_data_url(url) == b"hi"


@pytest.mark.parametrize("url", BAD_URLS)
def test_other_urls(url: str) -> None:
    with pytest.raises(ImageError):
        decode_data_url(url)


def test_a_copy_of_a_long_picture_is_no_longer_than_the_model_takes() -> None:
    # 199 times as high as wide; scaled and rounded down to patches it would be 238 times.
    picture = read_picture(encoded(Image.new("L", (193, 38_417))), 2_621_440, 50_000_000)
    assert (picture.copy.width, picture.copy.height) == (96, 19_200)
