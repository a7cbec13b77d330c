"""A picture of a data set as a data URL. The bytes are passed on as they are, never decoded and encoded anew. Pure."""

from __future__ import annotations

import base64
import binascii

_KINDS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}


class PictureError(Exception):
    """A question's picture cannot be sent."""


def kind_of(head: bytes) -> str:
    """The MIME type that the first 12 bytes of a file show.

    Raises:
        PictureError: It is not a picture that we know.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    raise PictureError(f"not a JPEG, PNG, WebP, GIF, BMP or TIFF file: it begins with {head[:12]!r}")


def url_of_base64(text: str) -> str:
    """A data URL of a picture in base64, in which line breaks do not count.

    Raises:
        PictureError: It is not base64 (judged by its length and its beginning; the server judges the rest), or not a
            picture that we know.
    """
    text = "".join(text.split())
    try:
        head = base64.b64decode(text[:16], validate=True)
    except binascii.Error as error:
        raise PictureError(f"not base64: it begins with {text[:16]!r}") from error
    if len(text) % 4:
        raise PictureError(f"not base64: its {len(text)} characters are no multiple of 4; was it cut off?")
    return f"data:{kind_of(head)};base64,{text}"


def url_of_bytes(content: bytes) -> str:
    """A data URL of a picture's file.

    Raises:
        PictureError: It is not a picture that we know.
    """
    return f"data:{kind_of(content[:12])};base64,{base64.b64encode(content).decode()}"
