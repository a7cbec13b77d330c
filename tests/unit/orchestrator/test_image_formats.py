"""Pictures as cameras, scanners, plots and attackers make them: what the model sees, and what is refused."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from s1vl_orchestrator.budget import image_tokens
from s1vl_orchestrator.images import MAX_MADE_PIXELS, ImageError, Picture, read_picture

BUDGET = 2_621_440
ORIENTATION = 0x0112
WHITE, BLACK, RED, GREEN, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
Colour = tuple[int, int, int]


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def read(content: bytes, budget: int = BUDGET) -> tuple[Picture, Image.Image]:
    """The picture, and the model's copy of it as the engine opens it."""
    picture = read_picture(content, budget, MAX_MADE_PIXELS)
    copy = Image.open(io.BytesIO(picture.copy.content))
    copy.load()
    assert copy.format == ("JPEG" if picture.copy.suffix == ".jpg" else "PNG")
    assert copy.size == (picture.copy.width, picture.copy.height)
    return picture, copy.convert("RGB")


def halves(mode: str, left: Any, right: Any, size: tuple[int, int] = (64, 48)) -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def numbers(dtype: str, left: float, right: float) -> Image.Image:
    array = np.full((48, 64), left, dtype)
    array[:, 32:] = right
    return Image.fromarray(array)


def near(seen: Any, colour: Colour, by: int = 6) -> bool:
    return all(abs(a - b) <= by for a, b in zip(seen, colour, strict=True))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour_type: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def sixteen_bit_rgb_png() -> bytes:
    row = b"\0" + struct.pack(">HHH", 65535, 0, 0) * 32 + struct.pack(">HHH", 0, 0, 65535) * 32
    return raw_png(64, 48, 16, 2, row * 48)


def tiff(array: np.ndarray[Any, Any]) -> bytes:
    done, out = cv2.imencode(".tiff", array)
    assert done
    return out.tobytes()


def animated(file_format: str) -> bytes:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=100, lossless=True)


def palette(file_format: str = "PNG") -> bytes:
    image = halves("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    return encoded(image, file_format, transparency=0)


def adobe_cmyk() -> bytes:
    content = encoded(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG", quality=95)
    # Photoshop's inks are stored inverted, which the Adobe segment says.
    assert b"Adobe" in content
    return content


def plain_cmyk() -> bytes:
    """CMYK without Adobe's segment: the inks are not inverted, and Pillow writes only the other kind."""
    content = encoded(ImageOps.invert(halves("RGB", (0, 255, 255), (255, 255, 0))).convert("CMYK"), "JPEG", quality=95)
    at = content.index(b"Adobe") - 4
    length = struct.unpack(">H", content[at + 2 : at + 4])[0]
    return content[:at] + content[at + 2 + length :]


LEFT_RIGHT: dict[str, tuple[Callable[[], bytes], Colour, Colour]] = {
    "16-bit grey PNG": (lambda: encoded(numbers("<u2", 3000, 1000)), WHITE, BLACK),
    "16-bit grey TIFF": (lambda: encoded(numbers("<u2", 65_535, 0), "TIFF"), WHITE, BLACK),
    "16-bit grey TIFF, big-endian": (lambda: encoded(numbers(">u2", 40_000, 4), "TIFF"), WHITE, BLACK),
    "32-bit integer TIFF": (lambda: encoded(numbers("<i4", 1_000_000, -5), "TIFF"), WHITE, BLACK),
    "float TIFF": (lambda: encoded(numbers("<f4", 1.5, 0.25), "TIFF"), WHITE, BLACK),
    "16-bit RGB PNG": (sixteen_bit_rgb_png, RED, BLUE),
    "1-bit PNG": (lambda: encoded(halves("1", 1, 0)), WHITE, BLACK),
    "1-bit TIFF, fax": (lambda: encoded(halves("1", 1, 0), "TIFF", compression="group4"), WHITE, BLACK),
    "grey with alpha": (lambda: encoded(halves("LA", (0, 0), (0, 255))), WHITE, BLACK),
    "grey with a transparent value": (lambda: encoded(halves("L", 9, 0), transparency=9), WHITE, BLACK),
    "RGB with a transparent colour": (lambda: encoded(halves("RGB", RED, BLUE), transparency=RED), WHITE, BLUE),
    "palette with transparency PNG": (palette, WHITE, BLUE),
    "palette with transparency GIF": (lambda: palette("GIF"), WHITE, BLUE),
    "RGBA WebP": (lambda: encoded(halves("RGBA", (0, 0, 0, 0), (*BLUE, 255)), "WEBP", lossless=True), WHITE, BLUE),
    "CMYK JPEG by Adobe": (adobe_cmyk, RED, BLUE),
    "CMYK JPEG": (plain_cmyk, RED, BLUE),
    "CMYK TIFF": (lambda: encoded(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "TIFF"), RED, BLUE),
    "progressive JPEG": (lambda: encoded(halves("RGB", RED, BLUE), "JPEG", progressive=True, quality=95), RED, BLUE),
    "grey JPEG": (lambda: encoded(halves("L", 255, 0), "JPEG"), WHITE, BLACK),
    "BMP": (lambda: encoded(halves("RGB", RED, BLUE), "BMP"), RED, BLUE),
    "PPM": (lambda: encoded(halves("RGB", RED, BLUE), "PPM"), RED, BLUE),
    "LAB TIFF": (lambda: encoded(halves("LAB", (255, 128, 128), (0, 128, 128)), "TIFF"), WHITE, BLACK),
}


@pytest.mark.parametrize("name", LEFT_RIGHT)
def test_the_model_sees_what_people_see(name: str) -> None:
    make, left, right = LEFT_RIGHT[name]
    picture, seen = read(make())
    assert (picture.width, picture.height, picture.rotated) == (64, 48, False)
    assert near(seen.getpixel((8, 24)), left), seen.getpixel((8, 24))
    assert near(seen.getpixel((56, 24)), right), seen.getpixel((56, 24))


def test_sixteen_bit_rgb_tiff() -> None:
    array = np.zeros((48, 64, 3), np.uint16)
    array[:, :32, 2] = array[:, 32:, 0] = 65_535  # OpenCV's order is blue, green, red.
    _, seen = read(tiff(array))
    assert (seen.getpixel((8, 24)), seen.getpixel((56, 24))) == (RED, BLUE)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(file_format: str) -> None:
    picture, seen = read(animated(file_format))
    assert near(seen.getpixel((8, 8)), RED)
    # The engine must not choose a frame: it gets a picture with one.
    assert getattr(Image.open(io.BytesIO(picture.copy.content)), "n_frames", 1) == 1


def test_of_several_pages_the_first_counts() -> None:
    pages = [Image.new("RGB", size, colour) for size, colour in (((64, 48), RED), ((400, 300), BLUE))]
    picture, seen = read(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (picture.width, picture.height) == (64, 48)
    assert seen.getpixel((8, 8)) == RED


def test_of_a_phones_two_exposures_the_first_counts() -> None:
    """Such a file is a JPEG with others behind it (MPO)."""
    photos = [Image.new("RGB", (64, 48), colour) for colour in (RED, BLUE)]
    picture, seen = read(encoded(photos[0], "MPO", save_all=True, append_images=photos[1:]))
    assert (picture.suffix, picture.copy.suffix) == (".jpg", ".jpg")
    assert near(seen.getpixel((8, 8)), RED)


def quarters() -> Image.Image:
    image = Image.new("RGB", (128, 64))
    for at, colour in (((0, 0), RED), ((64, 0), GREEN), ((0, 32), BLUE), ((64, 32), WHITE)):
        image.paste(colour, (*at, at[0] + 64, at[1] + 32))
    return image


@pytest.mark.parametrize("shrunk", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(file_format: str, orientation: int, shrunk: bool) -> None:
    """The sizes are those that the code reads, and exif_transpose, of which the model is told, gives what it sees."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    whole = quarters().resize((1280, 640), Image.Resampling.NEAREST)
    content = encoded(whole, file_format, exif=exif, quality=95)
    picture, seen = read(content, 102_400 if shrunk else BUDGET)
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.size == (picture.width, picture.height)
        told = ImageOps.exif_transpose(opened) if picture.rotated else opened.copy()
    # Pillow turns a TIFF by itself: the code sees it as the model does.
    assert picture.rotated == (orientation != 1 and file_format != "TIFF")
    assert (seen.width < told.width) == shrunk
    assert (seen.width > seen.height) == (told.width > told.height)
    for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
        expected = told.convert("RGB").getpixel((told.width * x // 4, told.height * y // 4))
        assert near(seen.getpixel((seen.width * x // 4, seen.height * y // 4)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture, seen = read(encoded(halves("RGB", RED, BLUE), "JPEG", exif=exif, quality=95))
    assert not picture.rotated
    assert near(seen.getpixel((8, 8)), RED)


def test_exif_that_is_broken_is_none() -> None:
    content = encoded(halves("RGB", RED, BLUE), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95)
    picture, seen = read(content)
    assert not picture.rotated
    assert near(seen.getpixel((8, 8)), RED)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_a_large_colour_profile_does_not_travel(file_format: str) -> None:
    """Of a copy, that is; the engine reads pixels and no profiles."""
    profile = bytes(range(256)) * 3_900
    content = encoded(halves("RGB", RED, BLUE, (2400, 1800)), file_format, icc_profile=profile, quality=95)
    picture, seen = read(content)
    assert near(seen.getpixel((8, 8)), RED)
    assert len(picture.copy.content) < 900_000
    assert b"ICC" not in picture.copy.content


def test_a_profile_that_no_decoder_takes_is_told() -> None:
    """More than Pillow unpacks, so that neither the code nor the engine could open the file."""
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000)))
    with pytest.raises(ImageError, match=r"decoded.*too large"):
        read(raw_png(2, 2, 8, 2, b"\0" * 14, profile))


POLYGLOTS = {
    "a ZIP behind it": b"PK\x03\x04<html><script>alert(1)</script>PK\x05\x06" + bytes(18),
    "another picture behind it": encoded(Image.new("RGB", (300, 300), BLUE), "JPEG"),
}


@pytest.mark.parametrize("name", POLYGLOTS)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF"])
def test_what_lies_behind_a_picture_is_not_seen(file_format: str, name: str) -> None:
    picture, seen = read(encoded(Image.new("RGB", (64, 48), RED), file_format) + POLYGLOTS[name])
    assert (picture.width, picture.height) == (64, 48)
    assert near(seen.getpixel((8, 8)), RED)


def broken(file_format: str, keep: float) -> bytes:
    noise = Image.effect_noise((256, 192), 90)
    content = encoded(noise, file_format)
    return content[: int(len(content) * keep)]


def jpeg_of(width: int, height: int) -> bytes:
    content = encoded(Image.new("L", (16, 16)), "JPEG")
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def bomb() -> bytes:
    """6 kB that want to be 1.6 GB."""
    return raw_png(40_000, 40_000, 8, 0, bytes(1_000_000))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated PNG": (lambda: broken("PNG", 0.6), "decoded"),
    "truncated JPEG": (lambda: broken("JPEG", 0.6), "decoded"),
    "truncated GIF": (lambda: broken("GIF", 0.6), "decoded"),
    "truncated TIFF": (lambda: broken("TIFF", 0.6), "decoded"),
    "truncated WebP": (lambda: broken("WEBP", 0.6), "decoded"),
    "truncated BMP": (lambda: broken("BMP", 0.6), "decoded"),
    "truncated PPM": (lambda: broken("PPM", 0.6), "decoded"),
    "a bomb": (bomb, "40000x40000 px; between 1 and 50000000 px"),
    "a JPEG that says it is 65500x65500": (lambda: jpeg_of(65_500, 65_500), "65500x65500 px"),
    "0x0 PNG": (lambda: raw_png(0, 0, 8, 0, b""), "0x0 px|decoded"),
    "0x5 PNG": (lambda: raw_png(0, 5, 8, 0, bytes(5)), "0x5 px|decoded"),
    "0x0 JPEG": (lambda: jpeg_of(0, 0), "0x0 px|decoded"),
    "0x0 GIF": (lambda: b"GIF89a" + bytes(7) + b";", "0x0 px|decoded"),
    "1x100000": (lambda: encoded(Image.new("L", (1, 100_000))), "1x100000 px is over 200"),
    "100000x1": (lambda: encoded(Image.new("L", (100_000, 1))), "100000x1 px is over 200"),
    "a PNG with a broken check sum": (lambda: raw_png(2, 2, 8, 0, bytes(6)).replace(b"IDAT", b"IDAX"), "decoded"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "decoded"),
    "PDF": (lambda: b"%PDF-1.7\n%%EOF\n", "decoded"),
    "HTML": (lambda: b"<!doctype html><script>alert(1)</script>", "decoded"),
    "ICO": (lambda: encoded(Image.new("RGB", (32, 32)), "ICO"), "decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ImageError, match=said):
        read(make())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(value: float) -> None:
    image = numbers("<f4", 0.5, 1.5)
    image.putpixel((0, 0), value)
    _, seen = read(encoded(image, "TIFF"))
    assert near(seen.getpixel((8, 24)), BLACK)
    assert near(seen.getpixel((56, 24)), WHITE)


def test_no_number_at_all() -> None:
    _, seen = read(encoded(numbers("<f4", math.nan, math.inf), "TIFF"))
    assert seen.size == (64, 48)


@given(st.data())
def test_whatever_the_bytes_nothing_but_an_image_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in LEFT_RIGHT if name != "LAB TIFF"]))
    content = bytearray(LEFT_RIGHT[name][0]())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    try:
        picture, seen = read(bytes(content))
    except ImageError as error:
        assert len(str(error)) < 300
    else:
        assert image_tokens(*seen.size) == image_tokens(picture.copy.width, picture.copy.height)
