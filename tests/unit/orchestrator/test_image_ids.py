"""Ids of pictures: one for each, and whatever a client makes up leads nowhere else."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s1vl_orchestrator.image_ids import ImageName, NoSuchIdError, image_id, parse_image_id

JOB, SHA = "5f0c" * 6, "0123456789abcdef" * 4
OUTPUT = PurePosixPath(".s1vl/jobs") / JOB / "output"

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..")
)


def made_up(path: bytes, job: str = JOB, digest: str = SHA[:32]) -> str:
    return f"{job}.{digest}.{urlsafe_b64encode(path).decode().rstrip('=')}"


@given(st.lists(names, min_size=1, max_size=6))
def test_an_id_leads_to_its_picture(parts: list[str]) -> None:
    file = OUTPUT.joinpath(*parts)
    identity = image_id(file, SHA)
    assert parse_image_id(identity) == ImageName(file, SHA[:32])
    assert identity.isascii()
    assert not set(identity) & set("/%?#&+ ")


@given(
    st.one_of(
        st.text(), st.from_regex(r"[0-9a-f]{24}\.[0-9a-f]{32}\.[A-Za-z0-9_=-]*"), st.text().map(lambda t: f"{JOB}.{t}")
    )
)
def test_no_text_leads_out_of_a_jobs_output(text: str) -> None:
    try:
        name = parse_image_id(text)
    except NoSuchIdError:
        return
    assert name.file.parts[:2] == (".s1vl", "jobs")
    assert name.file.parts[3] == "output"
    assert len(name.file.parts) > 4
    assert ".." not in name.file.parts
    assert image_id(name.file, name.digest) == text


SEPARATORS = ["/", "//", "/./", "\\", "\0", "%2f", "%252f", "/../", "\u2215", "\uff0f", "\n"]


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "~", "etc", "...", "%2e%2e"]), min_size=1, max_size=6),
    st.sampled_from(SEPARATORS),
)
@example(["..", "..", "inputs", "image_1.png"], "/")
@example(["", "etc", "passwd"], "/")
def test_no_path_leads_out_of_a_jobs_output(parts: list[str], separator: str) -> None:
    """Whatever is in the place of the path: it is taken as it is, or not at all."""
    path = separator.join(parts)
    try:
        name = parse_image_id(made_up(path.encode()))
    except NoSuchIdError:
        return
    assert str(name.file) == f"{OUTPUT}/{path}"
    assert not {"..", ".", ""} & set(path.split("/"))
    assert "\0" not in path


PATHS = [
    *(b"", b"/", b"/etc/passwd", b"..", b"../x.png", b"a/../../x.png", b"a//x.png", b"./x.png", b"a/.", b"a/"),
    *(b"x\0.png", b"\xff.png", b"\xed\xa0\x80.png", b"x" * 256 + b".png", b"a/" * 2100 + b"x.png"),
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_are_none(path: bytes) -> None:
    with pytest.raises(NoSuchIdError):
        parse_image_id(made_up(path))


GOOD = made_up(b"crop.png")
OTHERS = [
    "",
    "x",
    f"{JOB}.{SHA[:32]}",
    f"{JOB}.{SHA[:32]}.",
    f"{GOOD}=",
    f"{GOOD}\n",
    f" {GOOD}",
    GOOD.upper(),
    GOOD.replace(JOB, "../../bio"),
    GOOD.replace(JOB, ".." * 12),
    GOOD.replace(JOB, JOB[:-1]),
    GOOD.replace(JOB, JOB.replace("5", "\u0665")),
    GOOD.replace(SHA[:32], SHA),
    GOOD.replace(SHA[:32], ""),
    f"{GOOD}.x",
    f"{GOOD}/../x",
    "a" * 1_000_000,
    made_up(b"x" * 1_000_000),
    # The same bytes to a lenient decoder.
    made_up(b"a.png")[:-1] + "h",
]


@pytest.mark.parametrize("text", OTHERS, ids=range(len(OTHERS)))
def test_texts_that_are_no_id(text: str) -> None:
    assert parse_image_id(GOOD).file == OUTPUT / "crop.png"
    with pytest.raises(NoSuchIdError):
        parse_image_id(text)
