"""Cells that reach for other processes, for the kernel's interfaces, or for a life after the session."""

from __future__ import annotations

from tests.hostile.case import ANYHOW, BOTH, JOB, LOST, Case

_CLONE_NEW = "0x20000 0x2000000 0x4000000 0x8000000 0x10000000 0x20000000 0x40000000"

CASES = (
    Case(
        "exits",
        "a clear error and a fresh kernel",
        "os._exit(0)",
        LOST,
        ("KernelDied",),
    ),
    Case(
        "aborts",
        "a clear error and a fresh kernel",
        "os.abort()",
        LOST,
        ("KernelDied",),
    ),
    Case(
        "segmentation fault",
        "a clear error and a fresh kernel",
        "ctypes.string_at(0)",
        LOST,
        ("KernelDied",),
    ),
    Case(
        "kills itself",
        "a clear error and a fresh kernel",
        "os.kill(os.getpid(), signal.SIGKILL)",
        LOST,
        ("KernelDied",),
    ),
    Case(
        "kills server, host and other kernels",
        "refused, with any signal and by any call",
        "for pid in T['pids']:\n"
        "    refused('kill', os.kill, pid, signal.SIGKILL)\n"
        "    refused('tgkill', syscall, 'tgkill', pid, pid, signal.SIGKILL)\n"
        # The group of process 1 is no group but everybody, which is the next case.
        "    if pid != 1:\n"
        "        refused('killpg', os.killpg, pid, signal.SIGKILL, errors=(PermissionError, ProcessLookupError))\n"
        "print(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "kills everybody",
        "nobody can be signalled",
        # Not SIGKILL: this may run as root on somebody's machine. The victims notice this one, others ignore it. And
        # the call itself always succeeds, whoever it reaches.
        "os.kill(-1, signal.SIGURG)\nrefused('init', os.kill, 1, 0)\nprint(T['done'])",
    ),
    Case(
        "signals through a pidfd or a file's owner",
        "refused",
        "import fcntl\n"
        "r, w = os.pipe()\n"
        "for pid in T['pids']:\n"
        "    refused('pidfd', os.pidfd_open, pid)\n"
        "    fcntl.fcntl(r, fcntl.F_SETSIG, signal.SIGKILL)\n"
        "    with contextlib.suppress(OSError):\n"
        "        fcntl.fcntl(r, fcntl.F_SETOWN, pid)\n"
        "        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\n"
        "    os.write(w, b'x')\nprint(T['done'])",
    ),
    Case(
        "traces other processes",
        "refused",
        "for pid in T['pids']:\n"
        "    refused('attach', syscall, 'ptrace', 16, pid, 0, 0)\n"
        "    refused('seize', syscall, 'ptrace', 0x4206, pid, 0, 0)\nprint(T['done'])",
    ),
    Case(
        "reads other processes' memory",
        "refused",
        "place = ctypes.create_string_buffer(64)\n"
        "vector = (ctypes.c_void_p * 2)(ctypes.addressof(place), 64)\n"
        "for pid in T['pids']:\n"
        "    refused('read', syscall, 'process_vm_readv', pid, vector, 1, vector, 1, 0)\n"
        "    refused('write', syscall, 'process_vm_writev', pid, vector, 1, vector, 1, 0)\n"
        "    for name in ('mem', 'environ', 'cmdline', 'maps', 'fd', 'root/etc/passwd', 'cwd/note.txt', 'status'):\n"
        "        refused(name, contents, f'/proc/{pid}/{name}')\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "looks for secrets in environment and open files",
        "there are none",
        "import stat\nprint(dict(os.environ), sys.argv)\n"
        "for fd in range(1024):\n"
        "    try:\n"
        "        kind = os.fstat(fd).st_mode\n"
        "    except OSError:\n"
        "        continue\n"
        "    if stat.S_ISDIR(kind):\n"
        "        print('BREACH', 'an open folder', fd, os.listdir(fd))\n"
        "    if stat.S_ISREG(kind):\n"
        "        print(fd, os.pread(fd, 10000, 0))\n"
        "    if stat.S_ISSOCK(kind):\n"
        "        peer = socket.socket(fileno=os.dup(fd))\n"
        "        maker = struct.unpack('3i', peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]\n"
        "        name = os.fsencode(peer.getsockname())\n"
        "        if b'host.sock' in name or (name == b'' and maker == os.getppid()):\n"
        "            print('BREACH', 'a socket of the host', fd, peer)\n"
        "for path in ('/proc/self/environ', '/proc/1/environ', f'/proc/{os.getppid()}/environ'):\n"
        "    refused(path, contents, path, errors=(PermissionError, FileNotFoundError))\n"
        "print(T['done'])",
    ),
    Case(
        "leaves its process group",
        "refused",
        "refused('setsid', os.setsid)\nrefused('setpgid', os.setpgid, 0, 0)\n"
        "child = subprocess.Popen(['/bin/sleep', '60'])\nrefused('other', os.setpgid, child.pid, child.pid)\n"
        "child.kill(); print(T['done'])",
    ),
    Case(
        "a daemon outlives the session",
        "it is gone with the session",
        "import fcntl\n"
        "if os.fork() == 0:\n"
        "    with contextlib.suppress(OSError):\n"
        "        os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        lock = open('lock', 'w')\n"
        "        fcntl.lockf(lock, fcntl.LOCK_EX)\n"
        "        open('locked', 'w').close()\n"
        "        for number in (1, 2, 15):\n"
        "            signal.signal(number, signal.SIG_IGN)\n"
        "        while True: time.sleep(1)\n"
        "    os._exit(0)\n"
        "while not os.path.exists('locked'): time.sleep(0.01)\n"
        "print(T['done'])",
        sessions=(JOB,),
        then="import fcntl\nfcntl.lockf(open('lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ),
    Case(
        "a daemon outlives its kernel",
        "it is gone when the kernel has died and the session is closed",
        "import fcntl\n"
        "if os.fork() == 0:\n"
        "    lock = open('lock', 'w')\n"
        "    fcntl.lockf(lock, fcntl.LOCK_EX)\n"
        "    open('locked', 'w').close()\n"
        "    while True: time.sleep(1)\n"
        "while not os.path.exists('locked'): time.sleep(0.01)\n"
        "os._exit(0)",
        LOST,
        ("KernelDied",),
        sessions=(JOB,),
        then="import fcntl\nfcntl.lockf(open('lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ),
    Case(
        "children of its parent",
        "a kernel makes no processes beside itself",
        "refused('CLONE_PARENT', syscall, 'clone', 0x8000 | 17, 0, 0, 0, 0)\n"
        "refused('death signal', syscall, 'prctl', 1, 0, 0, 0, 0)\n"
        "refused('subreaper', syscall, 'prctl', 36, 0, 0, 0, 0)\nprint(T['done'])",
    ),
    Case(
        "a background thread",
        "it ends with the session",
        "import threading\n"
        "def forever():\n"
        "    while True: time.sleep(0.01)\n"
        "threading.Thread(target=forever).start()\nprint(T['done'])",
    ),
    Case(
        "namespaces and mounts",
        "refused",
        f"for flag in '{_CLONE_NEW}'.split():\n"
        "    refused('unshare ' + flag, syscall, 'unshare', int(flag, 16))\n"
        "    refused('clone ' + flag, syscall, 'clone', int(flag, 16) | 17, 0, 0, 0, 0)\n"
        "refused('setns', syscall, 'setns', 0, 0)\n"
        "refused('clone3', syscall, 'clone3', 0, 0, errors=(OSError,))\n"
        "refused('mount', syscall, 'mount', b'none', b'/tmp', b'tmpfs', 0, 0)\n"
        "refused('umount', syscall, 'umount2', b'/', 2)\n"
        "refused('chroot', os.chroot, '.')\n"
        "refused('pivot_root', syscall, 'pivot_root', b'.', b'.')\n"
        "refused('open_tree', syscall, 'open_tree', -100, b'/', 1)\n"
        "refused('fsopen', syscall, 'fsopen', b'tmpfs', 0)\nprint(T['done'])",
    ),
    Case(
        "interfaces with a history",
        "refused",
        "place = ctypes.create_string_buffer(256)\n"
        "for name in ('io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd keyctl "
        "add_key request_key inotify_init1 fanotify_init kcmp personality kexec_load init_module iopl syslog '\n"
        "             'memfd_create memfd_secret open_by_handle_at name_to_handle_at modify_ldt quotactl').split():\n"
        "    refused(name, syscall, name, 1, place, 0, 0, 0)\nprint(T['done'])",
    ),
    Case(
        "becomes somebody else",
        "refused",
        "refused('setuid', os.setuid, 0)\nrefused('setgid', os.setgid, 0)\nrefused('groups', os.setgroups, [0])\n"
        "refused('setresuid', os.setresuid, 0, 0, 0)\nrefused('setfsuid', syscall, 'setfsuid', 0)\n"
        "refused('capset', syscall, 'capset', 0, 0)\nprint(T['done'])",
    ),
    Case(
        "runs a setuid program",
        "it gets no privileges",
        "flags = _libc.prctl(39, 0, 0, 0, 0)\n"
        "if flags != 1:\n"
        "    print('BREACH', 'no_new_privs is', flags)\n"
        "for program in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd', '/usr/bin/newgrp'):\n"
        "    with contextlib.suppress(OSError):\n"
        "        subprocess.run([program, '--help'], capture_output=True)\nprint(T['done'])",
    ),
    Case(
        "runs a program from memory",
        "refused",
        "refused('memfd', os.memfd_create, 'x')\n"
        "refused('execveat', syscall, 'execveat', 0, b'', 0, 0, 0x1000)\n"
        "print(T['done'])",
    ),
    Case(
        "runs a program of its own making",
        "it does not run, or runs as confined as the kernel",
        "open('mine', 'wb').write(contents('/bin/true'))\nos.chmod('mine', 0o755)\n"
        "refused('exec', subprocess.run, ['./mine'])\n"
        "open('mine.py', 'w').write(f'print(open({T[\"victim_note\"]!r}).read())')\n"
        "linker = next(p for p in ('/lib64/ld-linux-x86-64.so.2', '/lib/ld-linux-aarch64.so.1') if os.path.exists(p))\n"
        "done = subprocess.run([linker, sys.executable, 'mine.py'], capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr[-300:])\n"
        "if done.returncode == 0:\n"
        "    print('BREACH', 'ld.so led out')\nprint(T['done'])",
    ),
    Case(
        "preloads a library into a child",
        "the child is as confined as the kernel",
        "env = {**os.environ, 'LD_PRELOAD': T['victim_note'], 'LD_LIBRARY_PATH': T['state_dir']}\n"
        "code = f'open({T[\"victim_note\"]!r})'\n"
        "done = subprocess.run(['/usr/bin/env', sys.executable, '-c', code], env=env, capture_output=True, text=True)\n"
        "if 'PermissionError' not in done.stderr:\n"
        "    print('BREACH', done)\nprint(T['done'])",
    ),
    Case(
        "calls of other architectures",
        "the process is killed",
        "_libc.syscall(ctypes.c_long(0x40000000 + 39))\nprint('BREACH', 'x32')"
        if __import__("platform").machine() == "x86_64"
        else "os.abort()",
        LOST,
        ("KernelDied",),
    ),
    Case(
        "shared memory between sessions",
        "refused: SysV, POSIX, mailboxes",
        "refused('shmget', syscall, 'shmget', 7, 4096, 0o1666)\nrefused('semget', syscall, 'semget', 7, 1, 0o1666)\n"
        "refused('msgget', syscall, 'msgget', 7, 0o1666)\n"
        "refused('mq_open', syscall, 'mq_open', b'q', 0o102, 0o666, 0)\n"
        "refused('/dev/shm', open, '/dev/shm/x', 'w')\nrefused('list', os.listdir, '/dev/shm')\nprint(T['done'])",
    ),
    Case(
        "tampers with the machine's clock and name",
        "refused",
        "refused('time', time.clock_settime, time.CLOCK_REALTIME, 0)\nrefused('name', socket.sethostname, 'x')\n"
        "refused('reboot', syscall, 'reboot', 0, 0, 0, 0)\n"
        "os.environ['TZ'] = 'Mars/Base'; time.tzset(); __import__('locale').setlocale(0, 'C')\nprint(T['done'])",
    ),
    Case(
        "descriptors of everything closed",
        "the server gives a result and a fresh kernel",
        "os.closerange(0, 1024)",
        ANYHOW,
        timeout=1,
    ),
)
