"""A program: imports as the kernel host does, runs cells in a kernel, and prints what that one imported and displayed.

Arguments: a folder, and "early" to run them in a kernel that is started as soon as one can be.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from s1vl_sandbox.kernels.warm import import_first, import_rest

CELLS = (
    "import numpy, cv2, PIL.Image, PIL.ImageDraw, PIL.ImageFont\nimport matplotlib.pyplot as plt",
    "display(PIL.Image.new('RGB', (8, 8), 'red'))",
    "plt.figure(); plt.plot([1, 2]); plt.title('t'); plt.show()",
    "PIL.Image.new('RGB', (8, 8)).save('a.png'); PIL.Image.new('RGB', (8, 8)).save('a.jpg')",
    "PIL.Image.open('a.png').convert('L').resize((4, 4)); PIL.Image.open('a.jpg').load(); cv2.imread('a.png')",
    "1 / 0",
)


def main(folder: Path, early: bool) -> None:
    import_first()
    if not early:
        for _ in import_rest(folder):
            pass
    known = set(sys.modules)
    reader, writer = os.pipe()
    if os.fork() == 0:
        report: dict[str, Any] = {"displayed": [], "error": None}
        try:
            play(folder, report["displayed"])
        except BaseException:
            report["error"] = traceback.format_exc()
        report["imported"] = sorted(set(sys.modules) - known)
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report_of_child:
        print(report_of_child.read())


def play(folder: Path, displayed: list[str]) -> None:
    from s1vl_sandbox.kernels.child import detach
    from s1vl_sandbox.kernels.ipython import KernelApp
    from s1vl_sandbox.limits import KernelLimits

    detach(folder, KernelLimits(0, 0, 0, 0), os.getppid())
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    app = KernelApp.prepare(folder)
    app.listen(b"rehearsal")
    shell = app.kernel.shell
    shell.display_pub.publish = lambda data, **_: displayed.extend(kind for kind in data if kind.startswith("image/"))
    for cell in CELLS[:-1]:
        shell.run_cell(cell).raise_error()
    shell.run_cell(CELLS[-1])


main(Path(sys.argv[1]), "early" in sys.argv[2:])
