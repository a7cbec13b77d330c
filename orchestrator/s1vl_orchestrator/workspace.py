"""A job's places on the image volume: its folder among the tenant's files, and the engine's copies of its pictures."""

from __future__ import annotations

import hashlib
import hmac
import logging
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from s1vl_orchestrator import files
from s1vl_orchestrator.conversation import ShownImage
from s1vl_orchestrator.images import ModelCopy, Workers
from s1vl_orchestrator.inputs import Input
from s1vl_orchestrator.paths import DONE, ENGINE_COPIES, Relative, TenantPaths, job_folder, job_output

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineNames:
    """Names for the engine's caches, derived from a secret and the tenant so that no two tenants ever share any."""

    key: bytes
    tenant: str

    @property
    def cache_salt(self) -> str:
        """Keeps the tenant's prefix cache apart."""
        return self._derive("cache_salt")

    def image(self, sha256: str) -> str:
        """The `uuid` of an image: equal for equal bytes of one tenant, unguessable for another."""
        return self._derive("image", sha256)[:32]

    def _derive(self, *what: str) -> str:
        return hmac.new(self.key, "\0".join((self.tenant, *what)).encode(), hashlib.sha256).hexdigest()


class Workspace:
    """Makes, fills and removes a job's places. All work on files happens in the image threads.

    Attributes:
        folder: The job's folder, below the tenant's.
        output: Where its code writes, below the tenant's folder.
    """

    def __init__(self, paths: TenantPaths, job_id: str, names: EngineNames, workers: Workers) -> None:
        self.paths = paths
        self.folder = job_folder(job_id)
        self.output = job_output(job_id)
        self._copies = ENGINE_COPIES / job_id
        self._names = names
        self._workers = workers
        self._files_for_engine: set[Path] = set()
        self._use_files = bool(paths.media_root)
        self.input_files: list[Relative] = []

    async def open(self, inputs: list[Input]) -> None:
        """Make the folders and write the pictures that came embedded.

        Raises:
            OSError: If the volume refuses.
        """
        await self._workers.run(self._open, inputs)

    def _open(self, inputs: list[Input]) -> None:
        files.make_directory(self.paths.folder, self.output)
        if self._use_files:
            try:
                files.make_directory(self.paths.root, self._copies)
            except OSError as error:
                # Correct without it, only slower: never fall back to a place that a sandbox can write to.
                log.warning("pictures go to the engine as base64: cannot make %s: %s", self._copies, error)
                self._use_files = False
        for number, item in enumerate(inputs, 1):
            if item.file is not None:
                self.input_files.append(item.file)
                continue
            file = self.folder / "inputs" / f"image_{number}{item.picture.suffix}"
            files.make_directory(self.paths.folder, file.parent)
            files.write(self.paths.folder, file, item.content or b"")
            self.input_files.append(file)

    async def show(self, copy: ModelCopy, path: str) -> ShownImage:
        """Put a picture where the engine can read it.

        Args:
            copy: The model's copy.
            path: The picture's path as the model's code sees it.

        Raises:
            OSError: If the volume refuses.
        """
        url = await self._workers.run(self._place, copy)
        part = {"type": "image_url", "image_url": {"url": url}, "uuid": self._names.image(copy.sha256)}
        return ShownImage(part, path, copy.width, copy.height)

    def _place(self, copy: ModelCopy) -> str:
        if not self._use_files:
            return f"data:{copy.mime};base64,{b64encode(copy.content).decode()}"
        file = self._copies / f"{copy.sha256[:32]}{copy.suffix}"
        files.write(self.paths.root, file, copy.content)
        self._files_for_engine.add(self.paths.root / file)
        return self.paths.engine_url(file)

    async def missing_copies(self) -> list[Path]:
        """The engine's copies that are gone; it answers an absent file with a 500 and a dropped connection."""
        return await self._workers.run(lambda: [file for file in self._files_for_engine if not file.exists()])

    async def close(self, *, keep: bool) -> None:
        """Remove the engine's copies, and the job's folder too unless something was made in it and is to be kept."""
        await self._workers.run(self._close, keep)

    def _close(self, keep: bool) -> None:
        for root, path, wanted in ((self.paths.root, self._copies, False), (self.paths.folder, self.folder, keep)):
            try:
                if wanted and files.list_files(self.paths.folder, self.output):
                    files.write(root, path / DONE, b"")
                else:
                    files.remove_tree(root, path)
            except OSError:
                log.exception("cannot tidy up %s", path)
