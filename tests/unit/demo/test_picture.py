"""The demo's picture shows what it claims to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hack.demo import picture


@pytest.mark.parametrize("colour", list(picture.COLOURS))
def test_only_the_mark_is_coloured(tmp_path: Path, colour: str) -> None:
    path = tmp_path / "folder" / "p.png"
    truth = picture.write(path, seed=7, colour=colour)
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (2160, 3840, 3)
    assert truth.size == (3840, 2160)
    left, top, right, bottom = truth.box
    assert 24 <= right - left <= 40
    chroma = pixels.max(axis=2) - pixels.min(axis=2)
    rows, columns = np.nonzero(chroma > 60)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    middle = pixels[(top + bottom) // 2, (left + right) // 2]
    assert np.abs(middle - np.array(truth.rgb)).max() < 40


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    first, again, other = tmp_path / "1.png", tmp_path / "2.png", tmp_path / "3.png"
    assert picture.write(first, 3) == picture.write(again, 3)
    assert first.read_bytes() == again.read_bytes()
    assert picture.write(other, 4).box != picture.write(again, 3).box


def test_unknown_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of red"):
        picture.write(tmp_path / "p.png", colour="pink")
