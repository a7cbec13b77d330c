"""A program: warms up as the kernel host does, runs cells in a kernel, and prints the modules that it had to import."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from s1vl_sandbox.kernels.warm import warm_up

CELLS = (
    "import numpy, cv2, PIL.Image, PIL.ImageDraw, PIL.ImageFont\nimport matplotlib.pyplot as plt",
    "display(PIL.Image.new('RGB', (8, 8), 'red'))",
    "plt.figure(); plt.plot([1, 2]); plt.title('t'); plt.show()",
    "PIL.Image.new('RGB', (8, 8)).save('a.png'); PIL.Image.new('RGB', (8, 8)).save('a.jpg')",
    "PIL.Image.open('a.png').convert('L').resize((4, 4)); PIL.Image.open('a.jpg').load(); cv2.imread('a.png')",
    "1 / 0",
)


def main(folder: Path) -> None:
    warm_up(folder)
    known = set(sys.modules)
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            report = play(folder)
        except BaseException:
            report = traceback.format_exc()
        os.write(writer, json.dumps(report or sorted(set(sys.modules) - known)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report_of_child:
        print(report_of_child.read())


def play(folder: Path) -> None:
    from s1vl_sandbox.kernels.child import detach
    from s1vl_sandbox.kernels.ipython import KernelApp
    from s1vl_sandbox.limits import KernelLimits

    detach(folder, KernelLimits(0, 0, 0, 0), os.getppid())
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    app = KernelApp.prepare(folder)
    app.listen(b"rehearsal")
    for cell in CELLS[:-1]:
        app.kernel.shell.run_cell(cell).raise_error()
    app.kernel.shell.run_cell(CELLS[-1])


main(Path(sys.argv[1]))
