"""What a hostile cell is, and the helpers its code may use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PRELUDE = """
import contextlib, ctypes, errno, os, signal, socket, struct, subprocess, sys, time
import pyseccomp
_libc = ctypes.CDLL(None, use_errno=True)

def syscall(name, *args):
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number < 0:
        raise PermissionError(name + ": this architecture has no such call")
    result = _libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

def refused(what, attack, *args, errors=(PermissionError,), **named):
    try:
        result = attack(*args, **named)
    except errors:
        return
    except BaseException as error:
        if getattr(error, "errno", 0) == errno.EROFS:  # A pod's root file system refuses before Landlock is asked.
            return
        print("UNEXPECTED", what, type(error).__name__, error)
        return
    print("BREACH", what, repr(result)[:300])

def contents(path):
    with open(path, "rb") as file:
        return file.read()
"""
"""Every attacking cell begins with this; ``T`` (the judge's targets) is defined before it.

``refused(what, attack, ...)`` prints a line with BREACH when the attack works, and one with UNEXPECTED when it fails in
another way than a refusal, so that a case cannot pass because its attack is broken.
"""

DONE = "ALL-ATTEMPTS-MADE"


class Session(Enum):
    """How the attacker's session is opened."""

    PLAIN = "plain"
    """With a private folder, reading the whole workspace."""
    JOB = "job"
    """As the orchestrator opens it: a folder of its own in the workspace to write, and two paths to read."""


class Ends(Enum):
    """How the attacking cell must end."""

    ATTEMPTED = "ok, having made all its attempts"
    ERROR = "with an error, in a kernel that lives on"
    TIMEOUT = "interrupted or killed when its time is up"
    LOST = "with its kernel gone"
    ANYHOW = "in any documented way"


ATTEMPTED, ERROR, TIMEOUT, LOST, ANYHOW = Ends
PLAIN, JOB = Session
BOTH = (PLAIN, JOB)


@dataclass(frozen=True)
class Case:
    """One hostile cell.

    Whatever a case expects, the judge also sees to it that no secret is in an answer, that both victims still have
    their variables, files and inputs as they were, that the server is ready, and that nothing of the attacker is left.

    Attributes:
        name: For people and for docs/sandbox.md.
        contained: What must not happen.
        code: The cell. ``T`` holds its targets.
        ends: How the cell must end.
        enames: With ``ERROR`` or ``LOST``: one of these must be the error's name.
        timeout: Seconds the cell gets.
        sessions: The kinds of session it is tried from.
        then: A cell for a new session with the same folder, after the attacker's was closed: repeated until it ends
            well.
        files: Names in the attacker's working folder that the server is asked for afterwards.
    """

    name: str
    contained: str
    code: str
    ends: Ends = ATTEMPTED
    enames: tuple[str, ...] = ()
    timeout: int = 10
    sessions: tuple[Session, ...] = (PLAIN,)
    then: str = ""
    files: tuple[str, ...] = ()
