"""What cells give back: values, errors, pictures, floods, deaths, timeouts."""

from __future__ import annotations

import base64
import io
import resource

import pytest
from PIL import Image

from .conftest import SHARED_SESSION, Sandbox, eventually, gone

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_value_and_what_was_printed(sandbox: Sandbox, session_id: str) -> None:
    data = await sandbox.execute("print('hello')\n40 + 2", session_id)
    assert data["status"] == "ok"
    assert data["session_id"] == session_id
    assert data["kernel_name"] == "python3"
    assert data["execution_count"] == 1
    assert data["code"] == "print('hello')\n40 + 2"
    assert data["msg_id"]
    assert data["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "hello\n"},
        {"output_type": "execute_result", "data": {"text/plain": "42"}, "metadata": {}, "execution_count": 1},
    ]


async def test_an_error(sandbox: Sandbox, session_id: str) -> None:
    data = await sandbox.execute("x = 1\nx / 0", session_id)
    assert data["status"] == "error"
    assert data["state_lost"] is False
    (error,) = data["outputs"]
    assert (error["output_type"], error["ename"], error["evalue"]) == ("error", "ZeroDivisionError", "division by zero")
    assert "\x1b" not in "".join(error["traceback"])
    assert await sandbox.printed("print(x)", session_id) == "1"


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("def f(:", "SyntaxError"),
        ("import nonexistent", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("input('?')", "StdinNotImplementedError"),
        ("import numpy\nnumpy.ones(100 * 2**30)", "MemoryError"),
        ("open('big', 'wb').truncate(2**40)", "OSError"),
        ("import os\ndef leak():\n  fds = [open('/dev/null') for _ in range(5000)]\nleak()", "OSError"),
    ],
)
async def test_errors_leave_a_kernel_that_works(sandbox: Sandbox, code: str, ename: str) -> None:
    data = await sandbox.execute(code, SHARED_SESSION)
    assert data["status"] == "error"
    assert [o["ename"].lstrip("_") for o in data["outputs"] if o["output_type"] == "error"] == [ename]
    assert await sandbox.printed("print(6 * 7)", SHARED_SESSION) == "42"


@pytest.mark.parametrize(
    "code",
    [
        "from PIL import Image\ndisplay(Image.new('RGB', (64, 48), 'red'))",
        "from PIL import Image\nImage.new('RGB', (64, 48), 'red')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "import cv2, numpy\nfrom PIL import Image\nImage.fromarray(cv2.blur(numpy.zeros((9, 9, 3), 'u1'), (3, 3)))",
    ],
)
async def test_pictures_come_back_as_png(sandbox: Sandbox, code: str) -> None:
    data = await sandbox.execute(code, SHARED_SESSION)
    pictures = [o["data"]["image/png"] for o in data["outputs"] if "image/png" in o.get("data", {})]
    assert data["status"] == "ok", data
    assert len(pictures) == 1
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).format == "PNG"


async def test_a_picture_over_the_limit_becomes_a_notice(sandbox: Sandbox) -> None:
    code = (
        "import numpy\nfrom PIL import Image\n"
        "rng = numpy.random.default_rng(0)\n"
        "display(Image.fromarray(rng.integers(0, 255, (3000, 3000, 3), 'u1')))"
    )
    data = await sandbox.execute(code, SHARED_SESSION)
    assert data["status"] == "ok"
    assert data["truncated"] is True
    assert "image/png" not in data["outputs"][0]["data"]
    assert "image/png of" in data["outputs"][0]["data"]["text/plain"]


@pytest.mark.parametrize(
    "code",
    [
        "print('x' * 2**30, flush=True)\nprint('the end')",
        "for _ in range(2**20): print('x' * 1023)\nprint('the end')",
    ],
)
async def test_printing_a_gigabyte_is_cut_and_costs_the_server_nothing(
    sandbox: Sandbox, session_id: str, code: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = await sandbox.execute(code, session_id, timeout=120)
    assert data["status"] == "ok", str(data)[-500:]
    assert data["truncated"] is True
    text = "".join(o["text"] for o in data["outputs"])
    assert len(text) < 300_000
    assert "characters left out]" in text
    assert text.endswith("the end\n")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_a_gigabyte_from_a_child_process_is_cut(sandbox: Sandbox) -> None:
    code = "import os\n_ = os.system('head -c 1000000000 /dev/zero | tr \"\\\\0\" x')"
    data = await sandbox.execute(code, SHARED_SESSION, timeout=120)
    assert data["status"] == "ok", str(data)[-500:]
    assert data["truncated"] is True
    assert len(str(data)) < 300_000


@pytest.mark.parametrize("code", ["'x' * 2**28", "raise ValueError('x' * 2**28)"])
async def test_giant_results_and_errors_are_cut(sandbox: Sandbox, code: str) -> None:
    data = await sandbox.execute(code, SHARED_SESSION, timeout=120)
    assert data["status"] == ("error" if "raise" in code else "ok")
    assert "characters left out]" in str(data["outputs"])
    assert len(str(data)) < 300_000


async def test_a_kernel_that_floods_the_sockets_itself_is_killed(sandbox: Sandbox, session_id: str) -> None:
    code = "s = get_ipython().kernel.iopub_socket\nwhile True: s.send_multipart([b'x' * (8 << 20)])"
    data = await sandbox.execute(code, session_id, timeout=60)
    assert data["status"] == "error"
    assert data["outputs"][-1]["ename"] == "OutputLimitExceeded"
    assert data["state_lost"] is True
    assert await sandbox.printed("print(1)", session_id) == "1"


async def test_a_cell_that_runs_too_long_is_interrupted_and_variables_survive(
    sandbox: Sandbox, session_id: str
) -> None:
    await sandbox.execute("x = 5", session_id)
    data = await sandbox.execute("print('begun')\nwhile True: pass", session_id, timeout=1)
    assert data["status"] == "timeout"
    assert data["state_lost"] is False
    assert data["outputs"][0]["text"] == "begun\n"
    assert data["outputs"][-1]["ename"] == "KeyboardInterrupt"
    assert "1 s" in data["message"]
    assert "survived" in data["hint"]
    assert await sandbox.printed("print(x)", session_id) == "5"


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n  try: time.sleep(100)\n  except KeyboardInterrupt: pass",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(100)",
    ],
)
async def test_a_cell_that_ignores_the_interrupt_is_killed_with_its_children(
    sandbox: Sandbox, session_id: str, code: str
) -> None:
    pids = await sandbox.printed(
        "import os, subprocess, time\n"
        "same = subprocess.Popen(['sleep', '1000'])\n"
        "away = subprocess.Popen(['nohup', 'sleep', '1001'])\n"
        "print(os.getpid(), same.pid, away.pid)",
        session_id,
    )
    data = await sandbox.execute(code, session_id, timeout=1)
    assert data["status"] == "timeout"
    assert data["state_lost"] is True
    assert "lost" in data["hint"]
    for pid in pids.split():
        await eventually(lambda pid=pid: gone(int(pid)))
    after = await sandbox.execute("same", session_id)
    assert after["outputs"][-1]["ename"] == "NameError"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os\nos._exit(7)", "exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
)
async def test_a_kernel_that_dies_is_reported_and_replaced(
    sandbox: Sandbox, session_id: str, code: str, says: str
) -> None:
    await sandbox.execute("x = 5", session_id)
    data = await sandbox.execute(code, session_id)
    assert data["status"] == "error"
    assert data["state_lost"] is True
    assert data["outputs"][-1]["ename"] == "KernelDied"
    assert says in data["outputs"][-1]["evalue"]
    assert (await sandbox.execute("x", session_id))["outputs"][-1]["ename"] == "NameError"


async def test_a_kernel_that_died_between_cells_is_reported_before_code_runs(sandbox: Sandbox, session_id: str) -> None:
    code = "import os, threading\nx = 5\nprint(os.getpid())\nthreading.Timer(0.05, os._exit, [0]).start()"
    pid = int(await sandbox.printed(code, session_id))
    await eventually(lambda: gone(pid))
    data = await sandbox.execute("x = 6", session_id)
    assert data["outputs"][-1]["ename"] == "KernelDied"
    assert data["state_lost"] is True
    assert (await sandbox.execute("x", session_id))["outputs"][-1]["ename"] == "NameError"


async def test_nothing_is_kept_on_disk_and_nothing_secret_is_in_the_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await sandbox.printed(
        "import os\nhistory = get_ipython().history_manager\nprint(history.hist_file, history.enabled, os.getcwd())\n"
        "print(sorted(os.environ))",
        SHARED_SESSION,
    )
    history, names = text.splitlines()
    assert history.startswith(":memory: False /tmp/")
    assert "S1VL" not in names
    assert "KUBE" not in names


async def test_limits_hold_for_children_too(sandbox: Sandbox) -> None:
    limits = (
        await sandbox.printed("print(*get_ipython().getoutput('ulimit -c; ulimit -n; ulimit -v'))", SHARED_SESSION)
    ).split()
    assert limits == ["0", "1024", str(4 * 1024 * 1024)]
