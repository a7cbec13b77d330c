"""Real processes that confine themselves and then try things."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from s1vl_sandbox.containment import ContainmentError, Grants, Protection, confine, probe

HELD = probe().held

BEGIN = """
import errno, os, socket, subprocess, sys
from pathlib import Path
from s1vl_sandbox.containment import ContainmentError, Grants, confine

def outcome(attempt, *args, **named):
    try:
        attempt(*args, **named)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
"""


def needs(*protections: Protection) -> pytest.MarkDecorator:
    missing = [str(protection) for protection in protections if protection not in HELD]
    return pytest.mark.skipif(bool(missing), reason=f"this machine cannot hold {missing}")


class Confined:
    """Runs code in a process of its own; ``work`` may be written, ``inputs`` be read, ``others`` neither."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.work, self.inputs, self.others = (self.root / name for name in ("work", "inputs", "others"))
        for folder in (self.work, self.inputs, self.others):
            folder.mkdir()
            (folder / "file").write_text(folder.name)

    def run(self, code: str, *, before: str = "") -> str:
        """What the code printed; it must end well."""
        confining = f"confine(Grants((Path({str(self.inputs)!r}),), (Path({str(self.work)!r}),)))\n"
        program = f"{BEGIN}work, inputs, others = {(str(self.work), str(self.inputs), str(self.others))!r}\n"
        program += f"{textwrap.dedent(before)}\n{confining}{textwrap.dedent(code)}"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=self.work, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
        return done.stdout.strip()

    def outcome(self, attempt: str) -> str:
        """`ok` or the name of the errno."""
        return self.run(f"print(outcome(lambda: {attempt}))")


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    return Confined(tmp_path)


@needs(Protection.FILES)
@pytest.mark.parametrize(
    ("attempt", "seen"),
    [
        ("open(work + '/new', 'w')", "ok"),
        ("os.rename(work + '/file', work + '/renamed')", "ok"),
        ("os.mkdir(work + '/folder')", "ok"),
        ("open(inputs + '/file')", "ok"),
        ("os.listdir(inputs)", "ok"),
        ("open(inputs + '/file', 'r+')", "EACCES"),
        ("os.truncate(inputs + '/file', 0)", "EACCES"),
        ("os.unlink(inputs + '/file')", "EACCES"),
        ("os.rename(inputs + '/file', work + '/mine')", "EACCES"),
        ("os.link(inputs + '/file', work + '/mine')", "EXDEV"),
        ("os.mkdir(inputs + '/new')", "EACCES"),
        ("open(others + '/file')", "EACCES"),
        ("os.listdir(others)", "EACCES"),
        ("os.listdir(os.path.dirname(work))", "EACCES"),
        ("open('../others/file')", "EACCES"),
        ("open('/proc/self/environ')", "EACCES"),
        ("open('/proc/cpuinfo')", "EACCES"),
        ("os.listdir('/')", "EACCES"),
        ("open('/dev/null', 'w')", "ok"),
        ("open('/dev/urandom', 'rb').read(1)", "ok"),
        ("open('/usr/new', 'w')", "EACCES"),
        ("subprocess.run(['/bin/sh', '-c', 'ls /usr | wc'], check=True, capture_output=True)", "ok"),
    ],
)
def test_files(confined: Confined, attempt: str, seen: str) -> None:
    assert confined.outcome(attempt) == seen


@needs(Protection.FILES, Protection.SYSCALLS)
def test_modes_and_times_stay_as_they_are(confined: Confined) -> None:
    before = (confined.inputs / "file").stat()
    attempts = "os.chmod(f, 0), os.utime(f, (1, 1)), os.chmod(inputs, 0)"
    assert confined.outcome(f"[({attempts}) for f in [inputs + '/file']]") == "ok"
    after = (confined.inputs / "file").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert confined.outcome("__import__('shutil').copy2(inputs + '/file', work + '/copy')") == "ok"
    assert (confined.work / "copy").read_text() == "inputs"


@needs(Protection.SYSCALLS)
@pytest.mark.parametrize(
    ("attempt", "seen"),
    [
        ("socket.socket()", "EPERM"),
        ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "EPERM"),
        ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "ENOTSUP"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
        ("socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)", "EPERM"),
        ("socket.socket(socket.AF_UNIX).connect('s')", "EPERM"),
        ("socket.socket(socket.AF_UNIX).bind('s')", "ok"),
        ("[a.send(b'x') + len(b.recv(1)) for a, b in [socket.socketpair()]]", "ok"),
        ("os.setsid()", "EPERM"),
        ("os.setpgid(0, 0)", "EPERM"),
        ("os.chown(work, 0, 0)", "EPERM"),
        ("os.setuid(0)", "EPERM"),
        ("os.memfd_create('x')", "EPERM"),
        ("os.pidfd_open(os.getpid())", "EPERM"),
        ("os.sched_setaffinity(os.getppid(), {0})", "EPERM"),
        ("os.setpriority(os.PRIO_PROCESS, os.getppid(), 1)", "EPERM"),
        ("os.nice(1)", "ok"),
        ("__import__('resource').setrlimit(7, (64, 64))", "ok"),
        ("__import__('threading').Thread(target=print).start()", "ok"),
        ("__import__('asyncio').run(__import__('asyncio').sleep(0))", "ok"),
    ],
)
def test_system_calls(confined: Confined, attempt: str, seen: str) -> None:
    assert confined.run(f"print(outcome(lambda: {attempt}))").split()[-1] == seen


@needs(Protection.SYSCALLS)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x32 belongs to x86-64")
def test_calls_of_other_architectures_kill(confined: Confined) -> None:
    code = """
    import ctypes, signal
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))
        os._exit(0)
    print(signal.Signals(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1).name)
    """
    assert confined.run(code) == "SIGSYS"


@needs(Protection.SIGNALS)
def test_signals_reach_children_only(confined: Confined) -> None:
    code = """
    child = subprocess.Popen(["/bin/sleep", "60"])
    print(outcome(os.kill, os.getppid(), 0), outcome(os.kill, 1, 0), outcome(child.kill), child.wait())
    """
    assert confined.run(code) == "EPERM EPERM ok -9"


@needs(Protection.SIGNALS)
def test_two_confined_processes_cannot_reach_each_other(confined: Confined) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", f"{BEGIN}confine(Grants((), ()))\nprint('ready', flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    attempts = f"outcome(os.kill, {other.pid}, 9), outcome(open, '/proc/{other.pid}/mem')"
    assert confined.run(f"print(*({attempts}))") == "EPERM EACCES"
    assert other.poll() is None
    other.communicate(timeout=60)
    assert other.returncode == 0


@needs(Protection.FILES, Protection.SIGNALS)
@pytest.mark.parametrize("abi", range(1, probe().landlock_abi + 1))
def test_an_older_landlock_gets_what_it_knows(confined: Confined, abi: int) -> None:
    """This machine's kernel, asked as if it were older; without the filter, so that each part shows by itself."""
    before = f"""
    from s1vl_sandbox import containment
    from s1vl_sandbox.containment import landlock, policy
    containment._no_new_privileges()
    openings = policy.rules(Grants((Path(inputs),), (Path(work),)), containment.libraries())
    landlock.restrict(openings, {abi})
    print(
        outcome(open, others + "/file"), outcome(open, inputs + "/file", "a"), outcome(open, work + "/file", "a"),
        outcome(os.truncate, inputs + "/file", 1), outcome(lambda: socket.create_server(("127.0.0.1", 0))),
        outcome(os.kill, os.getppid(), 0),
    )
    sys.exit(0)
    """
    seen = confined.run("", before=before).split()
    since = lambda first: "EACCES" if abi >= first else "ok"  # noqa: E731
    assert seen == ["EACCES", "EACCES", "ok", since(3), since(4), "EPERM" if abi >= 6 else "ok"]


@needs(Protection.FILES)
def test_what_a_kernel_starts_is_confined_too(confined: Confined) -> None:
    code = "subprocess.run([sys.executable, '-c', f'open({others!r} + \"/file\")'], capture_output=True, text=True)"
    assert "PermissionError" in confined.run(f"print({code}.stderr)")


@pytest.mark.skipif(not HELD, reason="this machine holds nothing")
@pytest.mark.parametrize(
    ("grant", "message"),
    [
        ("Path(work) / 'none'", "ENOENT"),
        ("Path(work) / 'link'", "ELOOP"),
        ("Path(work) / 'link' / 'file'", "ELOOP"),
        ("Path('work')", "absolute, resolved path"),
        ("Path('/')", "absolute, resolved path"),
    ],
)
@needs(Protection.FILES)
def test_grants_that_cannot_be(confined: Confined, grant: str, message: str) -> None:
    (confined.work / "link").symlink_to(confined.others)
    before = (
        f"try:\n    confine(Grants((), ({grant},)))\nexcept ContainmentError as error:\n    print(error)\nsys.exit(0)"
    )
    assert message in confined.run("", before=before)


def test_a_process_with_threads_is_refused(confined: Confined) -> None:
    before = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    try:
        confine(Grants((), ()))
    except ContainmentError as error:
        print(error, flush=True)
    os._exit(0)
    """
    assert "it has 2 threads" in confined.run("", before=before)


def test_asking_confines_nobody(tmp_path: Path) -> None:
    def state() -> list[str]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp"))]

    before = state()
    probe()
    assert state() == before
    assert (tmp_path / "new").write_text("x") == 1


def test_the_interface_raises_its_own_error(tmp_path: Path) -> None:
    """In this process: an error of the arguments comes before anything is confined."""
    with pytest.raises(ContainmentError):
        confine(Grants((Path("relative"),), (tmp_path,)))
    assert list(tmp_path.iterdir()) == []
