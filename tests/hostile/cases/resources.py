"""Cells that take all there is of something."""

from __future__ import annotations

from tests.hostile.case import ANYHOW, ATTEMPTED, ERROR, JOB, LOST, TIMEOUT, Case

CASES = (
    Case(
        "fork bomb",
        "other sessions and the server go on; all processes end with the cell",
        "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "fork bomb in C",
        "the same, past Python's own bookkeeping",
        "fork = _libc.fork\nwhile True:\n    fork()",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "shell bomb",
        "the same from a shell",
        "subprocess.run(['/bin/sh', '-c', 'while :; do sleep 60 & done'])",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "thread bomb",
        "threads end with the kernel",
        "import threading\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()",
        ANYHOW,
        timeout=2,
    ),
    Case(
        "prints 1 GiB",
        "the answer is cut, the kernel lives",
        "line = 'x' * 2**20\nfor _ in range(1024):\n    print(line)\nprint(T['done'])",
        timeout=30,
    ),
    Case(
        "floods stderr",
        "the answer is cut",
        "line = 'x' * 2**20\nfor _ in range(256):\n    sys.stderr.write(line)\nprint(T['done'])",
        timeout=30,
    ),
    Case(
        "floods through a child process",
        "the answer is cut or the kernel is ended for it",
        "subprocess.run(['/bin/sh', '-c', 'yes | head -c 300000000'])",
        ANYHOW,
        timeout=5,
    ),
    Case(
        "floods displays",
        "the answer is bounded",
        "from IPython.display import HTML, display\npage = HTML('x' * 2**16)\nfor _ in range(2000):\n    display(page)",
        ANYHOW,
        timeout=5,
    ),
    Case(
        "allocates 100 GiB",
        "a MemoryError in the cell",
        "block = bytearray(100 * 2**30)",
        ERROR,
        ("MemoryError",),
    ),
    Case(
        "maps 100 GiB",
        "an OSError in the cell",
        "import mmap\nmmap.mmap(-1, 100 * 2**30)",
        ERROR,
        ("OSError",),
    ),
    Case(
        "grows until it breaks",
        "a MemoryError before the pod's limit",
        "blocks = []\nwhile True:\n    blocks.append(bytearray(64 * 2**20))",
        ANYHOW,
        timeout=20,
    ),
    Case(
        "huge numpy array",
        "a MemoryError in the cell",
        "import numpy\nnumpy.ones(100 * 2**30, dtype='u1')",
        ERROR,
        ("MemoryError", "_ArrayMemoryError"),
    ),
    Case(
        "one endless file",
        "an OSError at the limit of a file's size; the file goes with the session",
        "block = b'x' * 2**20\nwith open('big', 'wb') as file:\n    while True:\n        file.write(block)",
        ERROR,
        ("OSError",),
        timeout=60,
    ),
    Case(
        "endless sparse file",
        "an OSError in the cell",
        "with open('sparse', 'wb') as file:\n    file.truncate(2**42)",
        ERROR,
        ("OSError",),
    ),
    Case(
        "many small files",
        "they go with the session",
        "for n in range(5000):\n    with open(f'f{n}', 'wb') as file:\n        file.write(b'x')\nprint(T['done'])",
        timeout=60,
    ),
    Case(
        "folders deeper than a path may be long",
        "they go with the session, which the host may end for them: what it cannot measure is over the limit",
        "for _ in range(3000):\n    os.mkdir('deeper-and-deeper'); os.chdir('deeper-and-deeper')\nprint(T['done'])",
        ANYHOW,
        timeout=60,
    ),
    Case(
        "folders nobody may enter",
        "they go with the session",
        "os.makedirs('a/b', mode=0o700)\nos.umask(0)\nos.mkdir('a/none', 0)\nprint(T['done'])",
    ),
    Case(
        "fills its folder and leaves",
        "the output folder stays the job's; everything else goes with the session",
        "with open('rest', 'wb') as file:\n    file.write(b'x' * 2**24)\nos._exit(0)",
        LOST,
        ("KernelDied",),
        sessions=(JOB,),
    ),
    Case(
        "opens files without end",
        "an OSError in the cell",
        "files = []\ndef more():\n    while True:\n        files.append(open('/dev/null'))\nmore()",
        ERROR,
        ("OSError",),
    ),
    Case(
        "recursion bomb",
        "a RecursionError in the cell",
        "def f(): f()\nf()",
        ERROR,
        ("RecursionError",),
    ),
    Case(
        "recursion in C",
        "the kernel dies alone",
        "sys.setrecursionlimit(2**30)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        ANYHOW,
        timeout=20,
    ),
    Case(
        "endless loop in C",
        "killed when the interrupt does nothing",
        "_libc.signal(signal.SIGINT, ctypes.c_void_p(1))\nsum(iter(int, 1))",
        TIMEOUT,
        timeout=1,
    ),
    Case(
        "endless sleep",
        "interrupted",
        "time.sleep(10**6)",
        TIMEOUT,
        timeout=1,
    ),
    Case(
        "ignores signals",
        "killed a second later",
        "for number in (signal.SIGINT, signal.SIGTERM):\n    signal.signal(number, signal.SIG_IGN)\nwhile True: pass",
        TIMEOUT,
        timeout=1,
    ),
    Case(
        "catches the interrupt",
        "killed a second later",
        "while True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass",
        TIMEOUT,
        timeout=1,
    ),
    Case(
        "stops itself",
        "killed although it cannot handle a signal",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        TIMEOUT,
        timeout=1,
    ),
    Case(
        "flood of alarms",
        "the kernel is ended or lives on; nobody else notices",
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\n"
        "while True: pass",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "gives itself a better place on the processor",
        "refused for others; lower for itself is its own affair",
        "for pid in T['pids']:\n"
        "    refused('setpriority', os.setpriority, os.PRIO_PROCESS, pid, 19)\n"
        "    refused('affinity', os.sched_setaffinity, pid, {0})\n"
        "    refused('prlimit', __import__('resource').prlimit, pid, 7, (16, 16))\n"
        "    refused('scheduler', os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))\n"
        "    refused('ioprio', syscall, 'ioprio_set', 1, pid, 3 << 13)\n"
        "refused('all of the user', os.setpriority, os.PRIO_USER, 0, 19)\nprint(T['done'])",
        ATTEMPTED,
    ),
)
