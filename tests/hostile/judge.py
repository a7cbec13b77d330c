"""Runs a hostile cell through the sandbox's HTTP API and judges what came of it.

The same judge works on a bare process and on a pod: what it cannot ask over HTTP it asks the :class:`Place`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from tests.hostile.case import DONE, PRELUDE, Case, Ends, Session

_ANSWER_BYTES = 48 * 2**20
_PATIENCE_SECONDS = 60.0

Data = dict[str, Any]


class Place(Protocol):
    """Where the sandbox runs.

    Attributes:
        url: Of its API.
        key: The API key; empty when it asks for none.
        workspace: The tenant's folder as kernels see it.
        state_dir: Where the sandbox keeps sockets and private folders.
        port: The API's port as kernels see it.
        pids: Processes of server and kernel host as kernels could know them.
    """

    url: str
    key: str
    workspace: str
    state_dir: str
    port: int
    pids: list[int]

    def make_job(self, name: str) -> str:
        """Make the folder of a job, as the orchestrator does, with an ``input.txt``; return its path for kernels."""

    def write_input(self, content: str) -> str:
        """Put a file into the workspace; return its path for kernels."""

    def exists(self, path: str) -> bool:
        """Whether a path of the kernels exists."""

    def group_lives(self, leader: int) -> bool:
        """Whether a process group of kernels has a process that has not ended."""


def eventually(what: str, condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {_PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class _Victim:
    """A session with something to lose."""

    name: str
    folder: str
    pid: int
    host: int
    check: str
    state: str


class Judge:
    """Two victims on one sandbox, and any number of attackers."""

    def __init__(self, place: Place) -> None:
        self._place = place
        headers = {"X-AIO-API-Key": place.key} if place.key else {}
        self._http = httpx.Client(base_url=place.url, headers=headers, timeout=180)
        self._secret = f"victims-own-{secrets.token_hex(16)}"
        self._numbers = itertools.count(1)
        self._ready()
        self._input = place.write_input("an input that nobody may change")
        self._job = place.make_job("victim")
        self._victims = [
            self._victim("victim", {}),
            self._victim("victim-job", {"cwd": f"{self._job}/output", "readable": [self._job, self._input]}),
        ]

        self._require_containment()

    def close(self) -> None:
        """Close all sessions."""
        self._http.delete("/v1/jupyter/sessions")
        self._http.close()

    def held(self) -> set[str]:
        """The protections that the sandbox says hold."""
        isolation: Data = self._http.get("/v1/sandbox").json()["data"].get("isolation", {})
        return set(isolation.get("held", ()))

    def try_case(self, case: Case, kind: Session) -> None:
        """Run a case in a session of its own; AssertionError when something is not contained."""
        name = f"attacker-{next(self._numbers)}"
        opened: Data = {"session_id": name}
        if kind is Session.JOB:
            job = self._place.make_job(name)
            opened |= {"cwd": f"{job}/output", "readable": [job, self._input]}
        try:
            self._attack(case, name, opened)
        finally:
            self._http.delete(f"/v1/jupyter/sessions/{name}")
        self._ready()
        for victim in self._victims:
            state = self._printed(victim.name, victim.check)
            assert state == victim.state, f"{victim.name} is not what it was"

    def _attack(self, case: Case, name: str, opened: Data) -> None:
        self._open(opened)
        home, cwd, group = self._printed(
            name, "import os; print(os.environ['HOME'], os.getcwd(), os.getpgid(0))"
        ).split()

        told = self._execute(name, f"T = {self._targets()!r}\n{PRELUDE}\n{case.code}", case.timeout)
        self._judge_answer(case, told)
        for file in case.files:
            self._ask_for(f"{cwd}/{file}")
        after = self._execute(name, "print(6 * 7)", 5)
        if case.ends is not Ends.ANYHOW:
            assert _text(after).strip() == "42", f"the session is no use any more: {after}"

        assert self._http.delete(f"/v1/jupyter/sessions/{name}").status_code == 200
        eventually("its processes are gone", lambda: not self._place.group_lives(int(group)))
        eventually(f"its private folder {home} is gone", lambda: not self._place.exists(home))
        if case.then:
            self._then(opened, case.then)

    def _victim(self, name: str, how: Data) -> _Victim:
        self._open({"session_id": name, **how})
        begin = (
            f"import hashlib, json, os, signal\nsecret = {self._secret!r}\n"
            "with open('note.txt', 'w') as file:\n    count = file.write(secret)\n"
            "signals = []\nsignal.signal(signal.SIGURG, lambda number, _: signals.append(number))\n"
            "print(json.dumps([os.getcwd(), os.getpid(), os.getppid()]))"
        )
        folder, pid, host = json.loads(self._printed(name, begin))
        check = (
            f"print([secret, signals, open('note.txt').read(), os.getpid(), open({self._input!r}).read()] "
            f"+ [(s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns) for s in map(os.stat, ('note.txt', {self._input!r}))]"
            " + [oct(os.stat('.').st_mode), sorted(os.listdir('.'))])"
        )
        return _Victim(name, folder, pid, host, check, self._printed(name, check))

    def _require_containment(self) -> None:
        """Try four harmless things first: a sandbox that confines nothing would let the cells harm this machine."""
        self._open({"session_id": "harmless"})
        attempts = (
            "refused('files', contents, T['victim_note'])\n"
            "refused('signals', os.kill, os.getppid(), 0)\nrefused('network', socket.socket)\n"
            "refused('system calls', os.setsid)"
        )
        seen = self._printed("harmless", f"T = {self._targets()!r}\n{PRELUDE}\n{attempts}")
        assert seen == "", f"this sandbox is not contained, so no hostile cell is run: {seen}"
        self._http.delete("/v1/jupyter/sessions/harmless")

    def _targets(self) -> Data:
        plain, job = self._victims
        # A victim whose parent is PID 1 has lost its host, and PID 1 of a machine is not ours to be killed.
        known = {*(v.pid for v in self._victims), *(v.host for v in self._victims if v.host > 1)}
        return {
            "done": DONE,
            "pids": sorted({*self._place.pids, *known}),
            "port": self._place.port,
            "workspace": self._place.workspace,
            "jobs": self._job.rpartition("/")[0],
            "input": self._input,
            "state_dir": self._place.state_dir,
            "victim_folder": plain.folder,
            "victim_note": f"{plain.folder}/note.txt",
            "victim_output": f"{job.folder}/note.txt",
            "victim_input": f"{self._job}/input.txt",
        }

    def _judge_answer(self, case: Case, told: Data) -> None:
        text = _text(told)
        # Of what was printed only: a traceback may quote the cell.
        printed = "".join(o["text"] for o in told["outputs"] if o["output_type"] == "stream")
        bad = [line for line in printed.splitlines() if line.startswith(("BREACH", "UNEXPECTED"))]
        assert not bad, "\n".join(bad)[:4000]
        enames = [o["ename"] for o in told["outputs"] if o["output_type"] == "error"]
        status, lost = told["status"], told["state_lost"]
        seen = f"{status}, state lost: {lost}, {enames}: {text[-2000:]}"
        match case.ends:
            case Ends.ATTEMPTED:
                assert status == "ok", seen
                assert DONE in text, seen
            case Ends.ERROR:
                assert (status, lost) == ("error", False), seen
                # Without memory or descriptors IPython prints the traceback, for it cannot format it.
                assert any(name in enames or name in text for name in case.enames), seen
            case Ends.LOST:
                assert (status, lost) == ("error", True), seen
                assert set(enames) & set(case.enames), seen
            case Ends.TIMEOUT:
                assert status == "timeout", seen

    def _ask_for(self, path: str) -> None:
        """The server must not serve what the attacker laid there."""
        read = self._guarded(self._http.post("/v1/file/read", json={"file": path}))
        assert read.json()["success"] is False, f"{path} was served: {read.text[:500]}"
        download = self._guarded(self._http.get("/v1/file/download", params={"path": path}))
        assert download.status_code >= 400, f"{path} was served: {download.text[:500]}"

    def _then(self, opened: Data, code: str) -> None:
        self._open(opened)
        name = opened["session_id"]
        eventually(f"{code!r} ends well", lambda: self._execute(name, code, 5)["status"] == "ok")
        self._http.delete(f"/v1/jupyter/sessions/{name}")

    def _ready(self) -> None:
        def ready() -> bool:
            try:
                return self._http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually("the server is ready", ready)

    def _open(self, how: Data) -> None:
        answer = self._http.post("/v1/jupyter/sessions/create", json=how)
        assert answer.status_code == 200, answer.text[:2000]

    def _execute(self, name: str, code: str, timeout: int) -> Data:
        answer = self._guarded(
            self._http.post("/v1/jupyter/execute", json={"session_id": name, "code": code, "timeout": timeout})
        )
        assert answer.status_code == 200, answer.text[:2000]
        data: Data = answer.json()["data"]
        assert data["status"] in ("ok", "error", "timeout")
        return data

    def _printed(self, name: str, code: str) -> str:
        answer = self._http.post("/v1/jupyter/execute", json={"session_id": name, "code": code, "timeout": 30}).json()
        data = answer["data"]
        assert data is not None and data["status"] == "ok", f"{name}: {answer}"
        return _text(data).strip()

    def _guarded(self, answer: httpx.Response) -> httpx.Response:
        """Bounded, and without anything that is not the attacker's."""
        assert len(answer.content) <= _ANSWER_BYTES, f"an answer of {len(answer.content)} bytes"
        key = self._place.key
        hidden = [self._secret, *([key, hashlib.sha256(key.encode()).hexdigest()] if key else [])]
        for secret in hidden:
            assert secret not in answer.text, _around(answer.text, secret)
        return answer


def _text(data: Data) -> str:
    parts = []
    for output in data["outputs"]:
        parts.append(str(output.get("text", "")) + "\n".join(output.get("traceback", ())))
        parts.append(str(output.get("data", {}).get("text/plain", "")))
    return "".join(parts)


def _around(text: str, word: str) -> str:
    at = text.find(word)
    return f"...{text[max(0, at - 300) : at + 700]}..."
