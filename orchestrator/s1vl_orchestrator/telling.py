"""Tells a job's events as they happen, every text and path as the client sees it."""

from __future__ import annotations

from typing import Any

from s1vl_orchestrator.cells import MadeImage
from s1vl_orchestrator.events import ClientText, Event, EventName, Listener
from s1vl_orchestrator.image_ids import IMAGES_URL, image_id
from s1vl_orchestrator.loop import Result
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.protocol.stream import Answering, Thinking
from s1vl_orchestrator.protocol.stream import Event as TurnEvent

TAKEN_BACK_MOST = 2


class Teller:
    """The voice of one job.

    All pieces of an answer since the last one with `restart` make the answer. A restart is rare: the model corrected
    itself, or what it said was not its last word.
    """

    def __init__(self, listen: Listener, paths: TenantPaths) -> None:
        self._listen = listen
        self._paths = paths
        self._turn = 0
        self._started = False
        self._stale = False
        """What was shown of an answer is an earlier turn's, which was not the last word."""
        self._reasoning = ClientText(paths)
        self._answer = ClientText(paths)
        self._shown = ""
        """Of the answer, since the last restart."""
        self._answering = False
        self._taken_back = 0

    def next_turn(self) -> None:
        """The engine is about to be asked."""
        self._turn += 1
        self._started = self._answering = False
        self._taken_back = 0
        self._stale = bool(self._shown)

    def hear(self, events: list[TurnEvent]) -> None:
        """What may be shown of the turn. The first list says that the engine has taken the turn up."""
        if not self._started:
            self._started = True
            self._tell(EventName.TURN_START, **({"restart": True} if self._taken_back else {}))
        for event in events:
            match event:
                case Thinking(text):
                    self._think(self._reasoning.feed(text))
                case Answering(text, restart):
                    self._answering = True
                    self._think(self._reasoning.flush())
                    if restart:
                        self._answer.flush()
                    self._say(self._answer.feed(text), restart=restart or self._stale)

    def take_back(self) -> bool:
        """Void what was told of the turn, which broke off; no where an answer was begun, or for the third time.

        Thinking may be told twice. The beginning of an answer may have been taken for the whole, and is left alone.
        """
        if self._answering or self._taken_back == TAKEN_BACK_MOST:
            return False
        self._taken_back += 1
        self._started = False
        self._reasoning.flush()
        return True

    def end_turn(self) -> None:
        """The turn is complete."""
        self._think(self._reasoning.flush())
        self._say(self._answer.flush())

    def code(self, source: str) -> None:
        """The turn had code."""
        self._tell(EventName.CODE, code=self._paths.to_client_text(source))

    def running(self) -> None:
        """The code begins to run."""
        self._tell(EventName.EXEC_START)

    def result(self, result: Result, made: list[MadeImage]) -> None:
        """The code ended, and pictures came of it."""
        self._tell(
            EventName.EXEC_RESULT,
            status=result.status,
            text=self._paths.to_client_text(result.text),
            seconds=round(result.seconds, 4),
            images=len(made),
        )
        for image in made:
            self._tell(EventName.IMAGE, **image_facts(image, self._paths))

    def done(self, answer: dict[str, Any]) -> None:
        """The job ended with this answer of `POST /process`."""
        text: str = answer["answer"] or ""
        if text.startswith(self._shown):
            self._say(text[len(self._shown) :])
        else:
            self._say(text, restart=True)
        self._listen(Event(EventName.DONE, answer))

    def _think(self, text: str) -> None:
        if text:
            self._tell(EventName.REASONING_DELTA, text=text)

    def _say(self, text: str, *, restart: bool = False) -> None:
        if restart and self._shown:
            self._shown = text
            self._stale = False
            self._tell(EventName.ANSWER_DELTA, text=text, restart=True)
        elif text:
            self._shown += text
            self._tell(EventName.ANSWER_DELTA, text=text)

    def _tell(self, name: EventName, **data: Any) -> None:
        self._listen(Event(name, {"turn": self._turn, **data}))


def image_facts(image: MadeImage, paths: TenantPaths) -> dict[str, Any]:
    """What the client is told of a picture that was made on the way."""
    identity = image_id(image.file, image.sha256)
    return {
        "id": identity,
        "path": paths.to_client(image.file),
        "url": f"{IMAGES_URL}/{identity}",
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
    }
