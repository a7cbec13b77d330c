"""Everything that happens to objects of a namespace, with the time at which it was heard."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from hack.kube import Kube

Object = dict[str, Any]

PODS = "/api/v1/namespaces/{}/pods"
EVENTS = "/api/v1/namespaces/{}/events"
CUSTOM_RESOURCES = "/apis/s1vl.io/v1alpha1/namespaces/{}/s1vldeployments"


class Seen:
    """What the objects of one kind were, version by version."""

    def __init__(self) -> None:
        self._versions: list[tuple[float, Object]] = []

    def read(self, stream: IO[bytes]) -> None:
        """Take in the answer of a watch until it ends."""
        for line in stream:
            self._versions.append((time.monotonic(), json.loads(line)["object"]))

    def first(self, holds: Callable[[Object], bool], since: float = 0.0) -> float | None:
        """When a version was first heard of, at `since` or later, of which something holds."""
        return next((at for at, found in list(self._versions) if at >= since and holds(found)), None)

    def last(self, holds: Callable[[Object], bool]) -> Object | None:
        """The version of which something holds that was heard of last."""
        return next((found for _, found in reversed(list(self._versions)) if holds(found)), None)


@contextlib.contextmanager
def watching(kube: Kube, namespace: str, *paths: str) -> Iterator[list[Seen]]:
    """Watch collections (the paths above) from now to the end of the block."""
    with contextlib.ExitStack() as ends:
        seen = []
        for path in paths:
            query = f"{path.format(namespace)}?watch=1&timeoutSeconds=3600"
            process = subprocess.Popen(
                [str(kube.kubectl_program), "get", "--raw", query],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env={**os.environ, "KUBECONFIG": str(kube.kubeconfig)},
            )
            assert process.stdout is not None
            one = Seen()
            thread = threading.Thread(target=one.read, args=(process.stdout,))
            thread.start()
            ends.enter_context(process)
            ends.callback(thread.join)
            ends.callback(process.terminate)
            seen.append(one)
        yield seen
