"""A job's place at an engine pod, and the pictures that the pod has of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from s1vl_orchestrator.engine_errors import EngineRefusedError, TryAgainError
from s1vl_orchestrator.engine_pod import Pod
from s1vl_orchestrator.engine_pods import EnginePods

log = logging.getLogger(__name__)


class Seat:
    """Stays at one pod for all turns, as its prefix and image caches have the job's prompt, and moves when it must.

    A picture that the pod has taken once goes as its `uuid` alone: the engine then neither reads nor processes it
    again. To be used as a context manager: its place is free afterwards.
    """

    def __init__(self, pods: EnginePods) -> None:
        self._pods = pods
        self._pod: Pod | None = None
        self._process = 0
        self._known: set[str] = set()

    def take(self, failures: Mapping[str, int]) -> Pod:
        """The pod for the next attempt, given how often which address failed the request."""
        pod = self._pod
        if pod is None or not pod.listed or pod.leaving or failures.get(pod.address):
            self._leave()
            pod, before = self._pods.choose(failures), pod
            pod.seats += 1
            self._pod = pod
            if before is not None and before is not pod:
                self._pods.metrics.engine_moves.inc()
                self._known = set()
        if pod.process != self._process:
            self._process = pod.process
            self._known = set()
        return pod

    def failed(self, failure: TryAgainError) -> None:
        """Note that the pod failed an attempt."""
        if self._pod is not None:
            self._pods.failed(self._pod, failure)

    def shorten(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages without the pictures that the pod has; the same object where it has none of them."""
        if not self._known or self._pod is None or not self._pod.takes_uuids:
            return messages
        return [
            {**message, "content": [_by_uuid(part, self._known) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]

    def sent(self, messages: list[dict[str, Any]]) -> None:
        """The pod has taken these messages, whole or shortened."""
        contents = [message["content"] for message in messages if isinstance(message["content"], list)]
        self._known = {part["uuid"] for content in contents for part in content if part.get("uuid")}

    def refuse_uuids(self, refusal: EngineRefusedError) -> None:
        """The pod takes pictures in full only."""
        if self._pod is not None:
            log.warning("engine pod %s takes no pictures by uuid alone: %s", self._pod.address, refusal)
            self._pod.takes_uuids = False

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._pod is not None:
            self._pod.seats -= 1
            self._pod = None


def _by_uuid(part: dict[str, Any], known: set[str]) -> dict[str, Any]:
    return {**part, "image_url": None} if part.get("uuid") in known else part
