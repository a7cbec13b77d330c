"""Imports images into the containerd of the running local cluster."""

from __future__ import annotations

from hack.cluster import containerd
from hack.images.build import Image, archive_path
from hack.ui import say, step


def load_into_cluster(images: list[Image], references: dict[str, str]) -> None:
    """Import the images that the cluster does not have yet; a tag tells the content, so what is there is right.

    Raises:
        Failure: the import failed or no cluster is running.
    """
    present = containerd.images()
    for image in images:
        reference = references[image.name]
        if reference in present:
            say(f"  ok  image {reference} is in the cluster already")
            continue
        with step(f"import {reference}"):
            containerd.import_image(archive_path(image))
