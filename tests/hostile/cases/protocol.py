"""Cells that turn the kernel's own machinery against the server."""

from __future__ import annotations

from tests.hostile.case import ANYHOW, ERROR, Case

_SEND = (
    "kernel = get_ipython().kernel\n"
    "def send(frames):\n"
    "    kernel.iopub_thread.socket.send_multipart(frames)\n"
    "def later(work):\n"
    "    kernel.iopub_thread.schedule(work); time.sleep(0.05)\n"
)

CASES = (
    Case(
        "garbage on the wire",
        "it is dropped",
        _SEND + "later(lambda: [send([b'', b'<IDS|MSG>', b'x']) for _ in range(100)])\n"
        "later(lambda: [send([os.urandom(1000)] * 9) for _ in range(100)])\n"
        "later(lambda: [send([b'<IDS|MSG>', b'', b'[' * 100000, b'{}', b'{}', b'{}']) for _ in range(10)])\n",
        ANYHOW,
        timeout=3,
    ),
    Case(
        "forged messages",
        "they end up in this session's own cell or nowhere",
        _SEND + "session = kernel.session\n"
        "for kind, content in (('status', {'execution_state': 'idle'}), ('stream', {'name': 3, 'text': [1]}),\n"
        "                      ('error', {'ename': None, 'evalue': {}, 'traceback': 'x'}),\n"
        "                      ('display_data', {'data': []}),\n"
        "                      ('execute_reply', {'status': 'ok'}), ('execute_input', 7), ('stream', None)):\n"
        "    for parent in (kernel.get_parent(), {}, {'header': {'msg_id': 'x'}}, None):\n"
        "        with contextlib.suppress(Exception):\n"
        "            later(lambda: session.send(kernel.iopub_thread.socket, kind, content, parent=parent))\n",
        ANYHOW,
        timeout=10,
    ),
    Case(
        "messages of 100 MiB",
        "the kernel is ended for its flood or the message is dropped",
        _SEND + "later(lambda: [send([b'x' * 2**20] * 100) for _ in range(5)])",
        ANYHOW,
        timeout=5,
    ),
    Case(
        "closes the sockets it is spoken to by",
        "the cell ends by its time limit, the next one gets a fresh kernel",
        "kernel = get_ipython().kernel\n"
        "for name in ('shell_stream', 'shell_socket', 'control_stream', 'iopub_socket'):\n"
        "    with contextlib.suppress(Exception):\n        getattr(kernel, name).close()\n"
        "kernel.shell_stream = None",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "breaks the kernel's Python",
        "the cell ends in some way, the next one gets an answer",
        "import builtins, json, zmq\n"
        "json.dumps = json.loads = None\nbuiltins.print = builtins.len = None\n"
        "get_ipython().run_cell = None\nget_ipython().kernel.do_execute = None",
        ANYHOW,
        timeout=1,
    ),
    Case(
        "lifts the kernel's own bounds",
        "the server has bounds too",
        "import s1vl_sandbox.outputs as o\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    stream._bound = type('Open', (), {'missing': 0, 'write': lambda s, x: x, 'finish': lambda s: ''})()\n"
        "for _ in range(200):\n    print('x' * 2**20)\n",
        ANYHOW,
        timeout=10,
    ),
    Case(
        "huge exception text",
        "the answer is cut",
        "raise ValueError('x' * 2**24)",
        ERROR,
        ("ValueError",),
        timeout=20,
    ),
    Case(
        "huge traceback",
        "the answer is cut",
        "def f(n):\n    if n == 0: raise KeyError('deep' * 2**14)\n    f(n - 1)\nf(300)",
        ERROR,
        ("KeyError",),
        timeout=20,
    ),
    Case(
        "hostile error class",
        "the answer is an error all the same",
        "class E(Exception):\n    def __str__(self): raise self\n    __repr__ = __str__\n"
        "E.__name__ = 'E' * 2**20\nraise E()",
        ANYHOW,
    ),
    Case(
        "asks for the other end of the conversation",
        "no key in reach opens another kernel",
        "session = get_ipython().kernel.session\nprint(len(session.key))\n"
        "import zmq\nsocket_ = zmq.Context().socket(zmq.SUB)\nsocket_.setsockopt(zmq.SUBSCRIBE, b'')\n"
        "socket_.setsockopt(zmq.LINGER, 0)\n"
        "socket_.connect('ipc://' + os.path.dirname(T['victim_folder']) + '/s-2')\n"
        "if socket_.poll(500):\n    print('BREACH', socket_.recv_multipart())",
        ANYHOW,
        timeout=3,
    ),
)
