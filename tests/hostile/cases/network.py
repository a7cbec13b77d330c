"""Cells that reach for the network and for sockets of others."""

from __future__ import annotations

from tests.hostile.case import BOTH, Case

CASES = (
    Case(
        "TCP to the server and out",
        "refused before a packet is made",
        "for address in (('127.0.0.1', T['port']), ('127.0.0.1', 22), ('1.1.1.1', 443), ('169.254.169.254', 80)):\n"
        "    refused(address, socket.create_connection, address, 1)\n"
        "refused('v6', socket.socket, socket.AF_INET6)\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "names",
        "no DNS",
        "import socket\n"
        "refused('dns', socket.getaddrinfo, 'example.com', 80, errors=(socket.gaierror, PermissionError))\n"
        "refused('udp', socket.socket, socket.AF_INET, socket.SOCK_DGRAM)\nprint(T['done'])",
    ),
    Case(
        "HTTP by library and by program",
        "refused",
        "import urllib.request\n"
        "refused('urllib', urllib.request.urlopen, f'http://127.0.0.1:{T[\"port\"]}/healthz', errors=(OSError,))\n"
        'code = f\'import socket; socket.create_connection(("127.0.0.1", {T["port"]}))\'\n'
        "done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "if 'PermissionError' not in done.stderr:\n    print('BREACH', done)\nprint(T['done'])",
    ),
    Case(
        "opens a port",
        "refused",
        "def serve():\n    s = socket.socket()\n    s.bind(('0.0.0.0', 0))\n    s.listen()\n    return s\n"
        "refused('listen', serve)\nprint(T['done'])",
    ),
    Case(
        "raw, packet, netlink and stranger sockets",
        "refused",
        "refused('raw', socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)\n"
        "refused('packet', socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)\n"
        "refused('netlink', socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 4, errors=(OSError,))\n"
        "for family in range(2, 46):\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        refused((family, kind), socket.socket, family, kind, errors=(OSError,))\nprint(T['done'])",
    ),
    Case(
        "families behind large numbers",
        "the upper half of an argument does not fool the filter",
        "for family in (2, 10, 16):\n"
        "    refused(family, syscall, 'socket', ctypes.c_ulong((1 << 32) | family), 1, 0)\n"
        "refused('unix dgram', syscall, 'socket', 1, ctypes.c_ulong((1 << 32) | 2), 0)\n"
        "refused('prctl', syscall, 'prctl', ctypes.c_ulong((1 << 32) | 1), 0, 0, 0, 0)\nprint(T['done'])",
    ),
    Case(
        "connects to the host and to other kernels",
        "refused, by connect() and by datagrams",
        "above = os.path.dirname(T['victim_folder'])\n"
        "places = [T['state_dir'] + '/host.sock', *(f'{above}/s-{n}' for n in range(1, 6))]\n"
        "for path in places:\n"
        "    refused(path, socket.socket(socket.AF_UNIX).connect, path)\n"
        "refused('datagrams', socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "refused('pair', socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "left, right = socket.socketpair()\nrefused('sendto', left.sendto, b'x', places[0])\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "abstract sockets",
        "nobody can connect to one",
        "listener = socket.socket(socket.AF_UNIX)\nlistener.bind('\\0s1vl-hostile')\nlistener.listen()\n"
        "refused('abstract', socket.socket(socket.AF_UNIX).connect, '\\0s1vl-hostile')\n"
        "refused('list', contents, '/proc/net/unix')\nprint(T['done'])",
    ),
    Case(
        "ZeroMQ over TCP",
        "an error, or the end of this kernel alone",
        "import zmq\n"
        "refused('bind', zmq.Context().socket(zmq.PUB).bind, 'tcp://127.0.0.1:*', errors=(zmq.ZMQError,))\n"
        "print(T['done'])",
    ),
)
