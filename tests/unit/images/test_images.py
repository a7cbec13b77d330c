"""Images: the same content gives the same bytes and the same name."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from hack.images import archive, build
from hack.images.tree import digest_files, pack
from hack.ui import Failure


def make_tree(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "b" / "run").write_text("#!/bin/sh\n")
    (folder / "b" / "run").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    os.link(folder / "a.txt", folder / "b" / "hard")
    return folder


def test_a_layer_depends_on_content_alone(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "1"), make_tree(tmp_path / "2")
    os.utime(two / "a.txt", (1, 1))
    pack(one, tmp_path / "1.tar")
    pack(two, tmp_path / "2.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        members = {m.name: m for m in tar}
    assert list(members) == ["a.txt", "b", "b/hard", "b/run", "link"]
    assert members["link"].linkname == "a.txt"
    assert members["b/hard"].islnk()
    assert members["b/run"].mode & 0o777 == 0o755


def test_sockets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    os.mkfifo(tmp_path / "t" / "pipe")
    pack(tmp_path / "t", tmp_path / "t.tar")
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize("change", ["content", "name", "mode"])
def test_a_digest_tells_files_apart(tmp_path: Path, change: str) -> None:
    one, two = make_tree(tmp_path / "1"), make_tree(tmp_path / "2")
    if change == "content":
        (two / "b" / "run").write_text("#!/bin/zs\n")
    elif change == "name":
        (two / "b" / "run").rename(two / "b" / "ran")
    else:
        (two / "b" / "run").chmod(0o644)
    digests = [digest_files((p for p in t.rglob("*") if p.is_file()), t) for t in (one, two)]
    assert digests[0] != digests[1]


def test_an_archive_is_what_docker_load_reads(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "top"):
        pack(make_tree(tmp_path / name), tmp_path / f"{name}.tar")
        layers.append(tmp_path / f"{name}.tar")
    (tmp_path / "top" / "a.txt").write_text("changed")
    pack(tmp_path / "top", layers[1])
    digests = [archive.digest(layer) for layer in layers]
    config = archive.image_config(digests, {"HOME": "/tmp"}, ("tini", "--"), ("x",), "10001:10001")
    archive.write(tmp_path / "i.tar", "localhost/x:1", layers, config)
    with tarfile.open(tmp_path / "i.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        stored = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        assert manifest["RepoTags"] == ["localhost/x:1"]
        assert [tar.extractfile(name).read() for name in manifest["Layers"]] == [l.read_bytes() for l in layers]  # type: ignore[union-attr]  # noqa: E741
    assert stored["rootfs"]["diff_ids"] == [f"sha256:{d}" for d in digests]
    assert stored["config"]["User"] == "10001:10001"


def test_every_image_has_its_sources_and_a_name_of_its_own() -> None:
    references = [build.reference(image) for image in build.CATALOGUE]
    assert len(set(references)) == len(references)
    assert references == [build.reference(image) for image in build.CATALOGUE]
    for image in build.CATALOGUE:
        files = build.source_files(image)
        assert files
        assert not [f for f in files if f.suffix == ".pyc"]


def test_an_unknown_image_is_refused() -> None:
    with pytest.raises(Failure, match="no image nope; there are s1vl, s1vl-sandbox, s1vl-engine-sim"):
        build.find(["nope"])
