"""The model card's own layout: pictures in the node's /data/images, all of it one tenant's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.demo import ask, picture
from hack.kube import Kube
from tests.e2e.conftest import Space, make_space

pytestmark = pytest.mark.skipif(
    os.environ.get("S1VL_CLUSTER", "local") != "local", reason="the node's folder must be this machine's"
)


@pytest.fixture
def open_space(kube: Kube) -> Iterator[Space]:
    """Pod Security `restricted` and `baseline` forbid hostPath."""
    yield from make_space(kube, "privileged")


def test_a_nodes_folder_is_served_and_keeps_its_owner(open_space: Space, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir(mode=0o755)
    truth = picture.write(folder / "field.png", seed=2)
    before = (folder / "field.png").stat()
    manifest = open_space.deployment(
        {"name": "local", "subPath": ""}, images={"volume": {"hostPath": str(folder)}}, orchestrator={}
    )
    manifest["spec"]["orchestrator"] = {"anonymousTenant": "local"}
    open_space.apply_ready(manifest)
    with open_space.orchestrator() as http:
        result = ask.ask(str(http.base_url), folder / "field.png", "/data/images/field.png")
    assert truth.colour in result["answer"]
    crop = folder / result["images"][0]["path"].removeprefix("/data/images/")
    assert crop.is_file()
    assert ((folder / ".s1vl").stat().st_uid, folder.stat().st_uid) == (10001, os.getuid())
    after = (folder / "field.png").stat()
    assert (after.st_uid, after.st_mode, after.st_mtime) == (before.st_uid, before.st_mode, before.st_mtime)
