"""Runs a job's code in its kernel and brings back text and pictures."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from s1vl_orchestrator import files
from s1vl_orchestrator.budget import ContextBudget
from s1vl_orchestrator.images import MAX_MADE_BYTES, MAX_MADE_PIXELS, ImageError, Picture, Workers, read_picture
from s1vl_orchestrator.job_kernel import JobKernel
from s1vl_orchestrator.loop import Result
from s1vl_orchestrator.paths import OutsideTenantError, Relative
from s1vl_orchestrator.protocol.profile import Profile
from s1vl_orchestrator.results import CellOutput, read_cell
from s1vl_orchestrator.sandbox import Cell, SandboxUnavailableError
from s1vl_orchestrator.workspace import Workspace

_MAX_NOTES = 4
SLACK_SECONDS = 1.0


@dataclass(frozen=True)
class MadeImage:
    """A picture that a job's code made: where it is, and what it is (sizes in px)."""

    file: Relative
    sha256: str
    width: int
    height: int


class JobCells:
    """The hands of a job. Its pictures are regular files of the job's own folder, whichever way they were announced.

    Attributes:
        made: All pictures so far, once each.
    """

    def __init__(
        self,
        kernel: JobKernel,
        workspace: Workspace,
        profile: Profile,
        *,
        budget: ContextBudget,
        workers: Workers,
        cell_seconds: int,
    ) -> None:
        self._kernel = kernel
        self._workspace = workspace
        self._profile = profile
        self._budget = budget
        self._workers = workers
        self._cell_seconds = cell_seconds
        self._stamps: dict[Relative, tuple[int, int, int]] = {}
        self._shown: set[str] = set()
        self._displayed = 0
        self.made: list[MadeImage] = []

    async def __call__(self, code: str, until: float) -> Result:
        """Run one cell until `time.monotonic()` is `until` at the latest.

        Raises:
            SandboxUnavailableError: If there is no kernel to be had.
            OSError: If the volume refuses a picture.
        """
        began = time.monotonic()
        seconds = max(1, min(self._cell_seconds, int(until - began)))
        workspace, texts = self._workspace, self._profile.texts
        code = self._profile.rewrite(code, workspace.paths.to_sandbox(workspace.output))
        try:
            async with asyncio.timeout(max(1.0, until - began) + SLACK_SECONDS):
                cell = await self._kernel.run(code, seconds)
        except TimeoutError as error:
            await self._kernel.close()
            raise SandboxUnavailableError("the sandbox did not answer in the time that was left") from error
        output = read_cell(cell, self._profile.limits.output_chars)
        pictures, notes = await self._workers.run(self._harvest, output)
        images, captions, named = [], [], []
        first = len(workspace.input_files) + len(self.made) - len(pictures)
        for index, (file, picture) in enumerate(pictures, first):
            path = workspace.paths.to_sandbox(file)
            images.append(await workspace.show(picture.copy, path))
            captions.append(_caption(self._profile, index, path, picture))
            named += [(name, path, picture.sha256) for name in self._profile.made_variables(index)]
        if named:
            self._kernel.promise(naming_code(named))
        lines = [output.text, *notes, *_state(cell, seconds, texts.timeout, texts.kernel_lost)]
        text = "\n".join(line for line in lines if line)
        if not text and not images:
            text = texts.no_output
        return Result(cell.status, text, images, captions, time.monotonic() - began)

    def _harvest(self, output: CellOutput) -> tuple[list[tuple[Relative, Picture]], list[str]]:
        most = self._profile.limits.new_images_per_turn
        found: list[tuple[Relative, Picture]] = []
        notes: list[str] = []
        left_out = 0
        for file, given in self._candidates(output, notes):
            try:
                content = given or files.read(self._workspace.paths.folder, file, MAX_MADE_BYTES)
                sha256 = hashlib.sha256(content).hexdigest()
                if sha256 in self._shown:
                    continue
                if len(found) == most:
                    left_out += 1
                    continue
                picture = read_picture(content, self._budget.new_pixels, MAX_MADE_PIXELS)
            except files.NotOursError:
                continue
            except (ImageError, files.FileTooLargeError) as error:
                if len(notes) < _MAX_NOTES:
                    notes.append(f"[{file.name} cannot be shown: {error}]")
                continue
            self._shown.add(sha256)
            found.append((file, picture))
            self.made.append(MadeImage(file, sha256, picture.width, picture.height))
        if left_out:
            notes.append(f"[{left_out} more pictures were made; at most {most} are shown at a time]")
        return found, notes

    def _candidates(self, output: CellOutput, notes: list[str]) -> Iterator[tuple[Relative, bytes | None]]:
        """Files to look at, each once: printed paths, then new or changed files, then displayed pictures."""
        workspace = self._workspace
        offered: set[Relative] = set()
        for path in output.printed_paths:
            file = self._own(path)
            if file is not None and file not in offered:
                offered.add(file)
                yield file, None
        for entry in files.list_files(workspace.paths.folder, workspace.output):
            changed = self._stamps.get(entry.path) != entry.stamp
            self._stamps[entry.path] = entry.stamp
            if changed and entry.path not in offered and entry.path.suffix.lower() in _SUFFIXES:
                yield entry.path, None
        for content in output.displayed:
            if hashlib.sha256(content).hexdigest() in self._shown:
                continue
            self._displayed += 1
            file = workspace.output / f"displayed_{self._displayed}.png"
            try:
                files.write(workspace.paths.folder, file, content)
            except OSError as error:  # The code may have removed its own folder.
                notes.append(f"[a displayed picture cannot be saved: {error.strerror}]")
                continue
            self._stamps.update({e.path: e.stamp for e in files.list_files(workspace.paths.folder, workspace.output)})
            yield file, content

    def _own(self, path: str) -> Relative | None:
        """The real file of the job that a printed path leads to, else None."""
        workspace = self._workspace
        try:
            asked = workspace.paths.from_sandbox(path, workspace.output)
            file = files.resolve(workspace.paths.folder, asked)
        except (OutsideTenantError, files.NotOursError):
            return None
        return file if file.is_relative_to(workspace.output) else None


_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"}


def _state(cell: Cell, seconds: int, timeout_text: str, lost_text: str) -> list[str]:
    if cell.status == "timeout":
        return [timeout_text.format(seconds=seconds)]
    return [lost_text] if cell.status == "lost" or cell.state_lost else []


def _caption(profile: Profile, index: int, path: str, picture: Picture) -> str:
    texts, width, height = profile.texts, picture.width, picture.height
    line = texts.new_image.format(n=index + 1, index=index, path=path, width=width, height=height)
    return line + (texts.rotated_image if picture.rotated else "")


def init_code(image_paths: list[str], output_dir: str, profile: Profile) -> str:
    """The cell that runs before a job's first one: the names that the prompt promises."""
    return f"""
import os
image_paths = {image_paths!r}
image_path = image_paths[0]
output_dir = temp_output_dir = {output_dir!r}
os.makedirs(output_dir, exist_ok=True)
os.chdir(output_dir)
for _path in image_paths:
    with open(_path, "rb") as _file:
        _file.read(1)
try:
    from PIL import Image as _Image
except ImportError:
    pass
else:
    for _name, _index in {profile.variables(len(image_paths))!r}:
        globals()[_name] = _Image.open(image_paths[_index])
del _file, _path
"""


def naming_code(pictures: list[tuple[str, str, str]]) -> str:
    """The cell that opens pictures under the names that their captions promise.

    A name that the job's code has given to something else stays that, and a file that is no longer the picture that
    the model saw gets no name.

    Args:
        pictures: Name of the variable, path in the sandbox, and SHA-256 in hex of each.
    """
    # A function, and io.open: what the job's code calls _path or open is its own business.
    return f"""
def _s1vl_name(pictures):
    import hashlib, io, os
    try:
        from PIL import Image
    except ImportError:
        return
    for name, path, sha256 in pictures:
        if name in globals() or not os.path.isfile(path):
            continue
        try:
            with io.open(path, "rb") as file:
                content = file.read({MAX_MADE_BYTES} + 1)
            if hashlib.sha256(content).hexdigest() == sha256:
                globals().setdefault(name, Image.open(io.BytesIO(content)))
        except Exception:  # One picture that cannot be opened must not cost the session.
            continue
_s1vl_name({pictures!r})
del _s1vl_name
"""
