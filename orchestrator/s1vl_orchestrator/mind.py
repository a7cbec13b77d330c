"""A job's engine: asks for turns at the job's seat, and tells what may be shown."""

from __future__ import annotations

from s1vl_orchestrator.conversation import Conversation
from s1vl_orchestrator.engine import EngineClient, Said
from s1vl_orchestrator.engine_seat import Seat
from s1vl_orchestrator.loop import Task
from s1vl_orchestrator.telling import Teller
from s1vl_orchestrator.workspace import Workspace


class EngineMind:
    """Says the turns of one job, all at the seat that it is given.

    Args:
        shown: The client sees what is said at once.
    """

    def __init__(
        self,
        engine: EngineClient,
        seat: Seat,
        workspace: Workspace,
        task: Task,
        teller: Teller,
        *,
        cache_salt: str,
        shown: bool,
    ) -> None:
        self._engine = engine
        self._seat = seat
        self._workspace = workspace
        self._task = task
        self._teller = teller
        self._cache_salt = cache_salt
        self._shown = shown

    async def __call__(self, conversation: Conversation, max_tokens: int, until: float, *, code_allowed: bool) -> Said:
        """Say one turn; errors as `EngineClient.ask`, and OSError if the pictures for the engine are gone."""
        missing = await self._workspace.missing_copies()
        if missing:
            raise FileNotFoundError(2, "the engine's copies of the pictures are gone", str(missing[0]))
        self._teller.next_turn()
        said = await self._engine.ask(
            self._seat,
            conversation.messages,
            self._task.profile,
            max_tokens=max_tokens,
            until=until,
            cache_salt=self._cache_salt,
            code_allowed=code_allowed,
            sampling=self._task.sampling,
            hear=self._teller.hear,
            take_back=self._teller.take_back if self._shown else None,
        )
        self._teller.end_turn()
        return said
