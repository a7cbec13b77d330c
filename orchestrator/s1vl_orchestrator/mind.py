"""A job's engine: asks for turns, sends each picture once, and tells what may be shown."""

from __future__ import annotations

import logging
from typing import Any

from s1vl_orchestrator.conversation import Conversation
from s1vl_orchestrator.engine import EngineClient, Said
from s1vl_orchestrator.engine_errors import CacheMissError, EngineRefusedError
from s1vl_orchestrator.loop import Task
from s1vl_orchestrator.telling import Teller
from s1vl_orchestrator.workspace import Workspace

log = logging.getLogger(__name__)


class EngineMind:
    """Says the turns of one job.

    A picture that the engine has taken once goes as its `uuid` alone: the engine then neither reads nor processes it
    again. Where it has forgotten it, or another replica answers, the turn is sent again in full.
    """

    def __init__(
        self, engine: EngineClient, workspace: Workspace, task: Task, teller: Teller, *, cache_salt: str, shown: bool
    ) -> None:
        self._engine = engine
        self._workspace = workspace
        self._task = task
        self._teller = teller
        self._cache_salt = cache_salt
        self._shown = shown
        self._known: set[str] = set()

    async def __call__(self, conversation: Conversation, max_tokens: int, until: float, *, code_allowed: bool) -> Said:
        """Say one turn; errors as `EngineClient.ask`, and OSError if the pictures for the engine are gone."""
        missing = await self._workspace.missing_copies()
        if missing:
            raise FileNotFoundError(2, "the engine's copies of the pictures are gone", str(missing[0]))
        self._teller.next_turn()

        async def ask(messages: list[dict[str, Any]]) -> Said:
            return await self._engine.ask(
                messages,
                self._task.profile,
                max_tokens=max_tokens,
                until=until,
                cache_salt=self._cache_salt,
                code_allowed=code_allowed,
                sampling=self._task.sampling,
                hear=self._teller.hear,
                shown=self._shown,
            )

        whole = conversation.messages
        if self._known and self._engine.takes_uuids:
            try:
                said = await ask(_without_known(whole, self._known))
            except EngineRefusedError as refusal:
                said = await ask(whole)
                if isinstance(refusal, CacheMissError):
                    self._engine.metrics.engine_retries.labels("image_cache_miss").inc()
                else:
                    log.warning("the engine takes no pictures by uuid alone: %s", refusal)
                    self._engine.takes_uuids = False
        else:
            said = await ask(whole)
        self._known = {part["uuid"] for part in _pictures(whole)}
        self._teller.end_turn()
        return said


def _pictures(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [part for content in contents for part in content if part.get("uuid")]


def _without_known(messages: list[dict[str, Any]], known: set[str]) -> list[dict[str, Any]]:
    return [
        {**message, "content": [_by_uuid(part, known) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def _by_uuid(part: dict[str, Any], known: set[str]) -> dict[str, Any]:
    return {**part, "image_url": None} if part.get("uuid") in known else part
