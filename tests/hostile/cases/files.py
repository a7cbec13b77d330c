"""Cells that reach for files: other sessions', the server's, the node's, and the inputs."""

from __future__ import annotations

from tests.hostile.case import ANYHOW, BOTH, JOB, PLAIN, Case

CASES = (
    Case(
        "reads another session's folder",
        "refused",
        "refused('note', contents, T['victim_note'])\nrefused('folder', os.listdir, T['victim_folder'])\n"
        "refused('above', os.listdir, os.path.dirname(T['victim_folder']))\n"
        "refused('through ..', contents, os.path.join('..', '..', *T['victim_note'].split('/')[-3:]), "
        "errors=(PermissionError, FileNotFoundError))\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "reads another job",
        "refused to a job's session: inputs and outputs of other jobs",
        "refused('output', contents, T['victim_output'])\nrefused('input', contents, T['victim_input'])\n"
        "refused('jobs', os.listdir, T['jobs'])\nrefused('workspace', os.listdir, T['workspace'])\nprint(T['done'])",
        sessions=(JOB,),
    ),
    Case(
        "looks for sockets, keys and connection files",
        "refused",
        "refused('state', os.listdir, T['state_dir'])\n"
        "refused('socket', contents, T['state_dir'] + '/host.sock', errors=(PermissionError, FileNotFoundError))\n"
        "for up in ('..', '../..', '../../..'):\n"
        "    with contextlib.suppress(OSError):\n"
        "        for path, names, files in os.walk(up):\n"
        "            for name in files:\n"
        "                with contextlib.suppress(OSError):\n"
        "                    print(path, name, contents(os.path.join(path, name))[:2000])\nprint(T['done'])",
    ),
    Case(
        "reads the node's secrets",
        "refused",
        "for path in ('/etc/shadow', '/root', '/proc/kcore', '/proc/kallsyms', '/dev/mem', '/dev/kmsg', '/etc/hosts',\n"
        "             '/var/run/secrets/kubernetes.io/serviceaccount/token', '/run', '/home', '/sys/fs/cgroup', '/'):\n"
        "    refused(path, os.listdir if os.path.isdir(path) else contents, path, "
        "errors=(PermissionError, FileNotFoundError))\nprint(T['done'])",
    ),
    Case(
        "writes where it may only read",
        "refused",
        "for path in (T['workspace'] + '/new', '/usr/x', '/etc/x', sys.prefix + '/x', '/dev/x', '/tmp/../x',\n"
        "             T['jobs'] + '/x', T['state_dir'] + '/x'):\n"
        "    refused(path, open, path, 'w')\n    refused(path, os.mkdir, path, errors=(PermissionError,))\n"
        "print(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "changes the contents of an input",
        "refused: writing, truncating, removing, renaming",
        "path = T['input']\n"
        "refused('write', open, path, 'r+b')\nrefused('append', open, path, 'ab')\nrefused('empty', open, path, 'wb')\n"
        "refused('truncate', os.truncate, path, 0)\nrefused('O_TRUNC', os.open, path, os.O_RDONLY | os.O_TRUNC)\n"
        "refused('unlink', os.unlink, path)\nrefused('rename', os.rename, path, 'mine', errors=(OSError,))\n"
        "refused('over', os.rename, '/etc/passwd', path, errors=(OSError,))\n"
        "open('mine', 'w').write('x')\nrefused('replace', os.replace, 'mine', path, errors=(OSError,))\n"
        "refused('ftruncate', os.ftruncate, os.open(path, os.O_RDONLY), 0, errors=(OSError,))\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "changes the attributes of an input",
        "no effect: modes, times; refused: owners, extended attributes",
        "path = T['input']\nfd = os.open(path, os.O_RDONLY)\n"
        "for attack in (lambda: os.chmod(path, 0), lambda: os.fchmod(fd, 0), lambda: os.utime(path, (1, 1)),\n"
        "               lambda: os.utime(fd, (1, 1)), lambda: syscall('fchmodat', -100, path.encode(), 0)):\n"
        "    with contextlib.suppress(OSError):\n        attack()\n"
        "refused('chown', os.chown, path, os.getuid(), os.getgid())\nrefused('fchown', os.fchown, fd, 1, 1)\n"
        "refused('xattr', os.setxattr, path, 'user.x', b'1')\nrefused('fxattr', os.setxattr, fd, 'user.x', b'1')\n"
        "import fcntl\nrefused('lease', fcntl.fcntl, fd, 1024, fcntl.F_RDLCK)\n"
        "refused('flags', fcntl.ioctl, fd, 0x40086602, struct.pack('l', 0x20))\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "takes the rights from other sessions' folders",
        "no effect",
        "for path in (T['victim_folder'], T['victim_note'], T['state_dir'], T['jobs'], T['workspace']):\n"
        "    with contextlib.suppress(OSError):\n        os.chmod(path, 0)\n"
        "    with contextlib.suppress(OSError):\n        os.utime(path, (1, 1))\n"
        "    refused('chown', os.chown, path, 1, 1)\n    refused('rename', os.rename, path, path + 'x')\n"
        "    refused('remove', os.rmdir if os.path.isdir(path) else os.unlink, path)\nprint(T['done'])",
        sessions=BOTH,
    ),
    Case(
        "changes the packages other kernels import",
        "refused",
        "import numpy\nfor path in (numpy.__file__, os.__file__):\n"
        "    refused(path, open, path, 'ab')\n    refused(path, os.rename, path, path)\n"
        "refused('new', open, os.path.join(os.path.dirname(numpy.__file__), 'x.py'), 'w')\nprint(T['done'])",
    ),
    Case(
        "symbolic links to what it may not read",
        "neither the kernel nor the server follows them",
        "for n, path in enumerate((T['victim_note'], '/etc/shadow', '/etc/passwd', '/proc/self/environ')):\n"
        "    os.symlink(path, f'link{n}')\n"
        "os.symlink(T['victim_folder'], 'folder')\nos.symlink('/proc/self/cwd/link0', 'chain')\n"
        "refused('link', contents, 'link0')\nrefused('shadow', contents, 'link1')\n"
        "refused('folder', os.listdir, 'folder')\nprint(T['done'])",
        sessions=BOTH,
        files=("link0", "link1", "link2", "link3", "folder/note.txt", "chain"),
    ),
    Case(
        "hard links to what it may not change",
        "refused",
        "refused('note', os.link, T['victim_note'], 'hard', errors=(OSError,))\n"
        "refused('input', os.link, T['input'], 'hard', errors=(OSError,))\n"
        "refused('passwd', os.link, '/etc/passwd', 'hard', errors=(OSError,))\nprint(T['done'])",
        sessions=BOTH,
        files=("hard",),
    ),
    Case(
        "pipes and sockets in the place of pictures",
        "the server does not hang on them",
        "os.mkfifo('a.png')\nsocket.socket(socket.AF_UNIX).bind('b.png')\nos.mkdir('c.png')\n"
        "refused('device', os.mknod, 'd.png', 0o20666, os.makedev(1, 3))\nprint(T['done'])",
        sessions=(JOB,),
        files=("a.png", "b.png", "c.png", "d.png"),
    ),
    Case(
        "removes its own folder",
        "the session ends in an orderly way",
        "import shutil\nfor path in (os.getcwd(), os.path.dirname(os.getcwd())):\n"
        "    shutil.rmtree(path, ignore_errors=True)\nprint(T['done'])",
        ANYHOW,
        sessions=(PLAIN, JOB),
    ),
    Case(
        "replaces its own folder by a link",
        "the server removes the link, not what it leads to",
        "import shutil\nhere = os.getcwd()\n"
        "with contextlib.suppress(OSError):\n"
        "    os.rename(here, here + '-away')\n    os.symlink(T['victim_folder'], here)\n"
        "os.symlink(T['victim_folder'], 'inside')\nos.symlink('/', 'root')\nprint(T['done'])",
        ANYHOW,
    ),
)
