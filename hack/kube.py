"""kubectl and helm as functions, for the demo and the tests on a whole cluster."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hack.cluster.api import ApiError

T = TypeVar("T")


class CommandError(RuntimeError):
    """A kubectl or helm call ended with a status other than 0; the message holds what it wrote."""


@dataclass(frozen=True)
class Kube:
    """One cluster, reached with these programs and this kubeconfig."""

    kubeconfig: Path
    kubectl_program: Path
    helm_program: Path

    def _run(self, program: Path, *args: str, stdin: str | bytes | None = None, timeout: float = 300) -> str:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [str(program), *args],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise CommandError(f"{program.name} {' '.join(args)} ended with {done.returncode}: {said}")
        return done.stdout.decode(errors="replace")

    def kubectl(self, *args: str, stdin: str | bytes | None = None, timeout: float = 300) -> str:
        """Run kubectl and return what it printed."""
        return self._run(self.kubectl_program, *args, stdin=stdin, timeout=timeout)

    def helm(self, *args: str, timeout: float = 300) -> str:
        """Run helm and return what it printed."""
        return self._run(self.helm_program, *args, timeout=timeout)

    def apply(self, *manifests: dict[str, Any]) -> str:
        """`kubectl apply` of manifests."""
        return self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        )

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind in a namespace that match a label selector."""
        text = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def exec(
        self,
        pod: str,
        namespace: str,
        *command: str,
        stdin: bytes | None = None,
        container: str = "",
        timeout: float = 60,
    ) -> str:
        """Run a command in a pod (`deploy/NAME` works too) and return what it printed."""
        args = ["exec", "-n", namespace, pod, *(["-c", container] if container else []), *(["-i"] if stdin else [])]
        return self.kubectl(*args, "--", *command, stdin=stdin, timeout=timeout)

    @contextlib.contextmanager
    def port_forward(self, target: str, namespace: str, port: int) -> Iterator[str]:
        """Forward a free port of 127.0.0.1 to `target` (`svc/NAME`, `pod/NAME`); yields the base URL."""
        process = subprocess.Popen(
            [str(self.kubectl_program), "port-forward", "-n", namespace, target, f":{port}", "--address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline().decode()
            found = re.search(r"127\.0\.0\.1:(\d+)", first)
            if found is None:
                rest = process.stdout.read().decode() if process.poll() is not None else ""
                raise CommandError(f"kubectl port-forward {target} {port} did not start: {first}{rest}")
            yield f"http://127.0.0.1:{found.group(1)}"
        finally:
            process.terminate()
            process.wait(timeout=10)
            if process.stdout is not None:
                process.stdout.close()


def wait_for(what: str, probe: Callable[[], T], timeout: float = 120, every: float = 0.5) -> T:
    """Call `probe` until what it returns is true, and return that.

    Raises:
        TimeoutError: after `timeout` seconds, with the last value or error in the message.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            last = value = probe()
            if value:
                return value
        except (CommandError, ApiError, OSError, ValueError, LookupError, AssertionError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}; last seen: {last!r}")
        time.sleep(every)
