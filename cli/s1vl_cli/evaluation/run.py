"""Puts the questions to the server, several at a time, and writes down what comes of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from s1vl_cli.errors import CommandError
from s1vl_cli.evaluation.client import Client, NoAnswerError, Reply
from s1vl_cli.evaluation.dataset import Dataset
from s1vl_cli.evaluation.matching import option_of
from s1vl_cli.evaluation.pictures import PictureError
from s1vl_cli.evaluation.questions import Question, prompt_of
from s1vl_cli.evaluation.results import Answered, Failed, Results, Settings

Told = Callable[[Answered | Failed], object]


class StoppedError(Exception):
    """The server is not there, so the rest was not asked."""


async def run(
    client: Client,
    dataset: Dataset,
    questions: Sequence[Question],
    results: Results,
    settings: Settings,
    *,
    concurrency: int,
    told: Told,
) -> None:
    """Ask all of `questions` that `results` has no answer to.

    Only the pictures of the questions that are being asked are in memory. Cancelling it leaves `results` whole.

    Args:
        client: The server.
        dataset: Where the pictures are.
        questions: Those that are wanted.
        results: Where answers and failures go.
        settings: What the request says besides the question.
        concurrency: How many are asked at once.
        told: Called with each record once it is written.

    Raises:
        CommandError: The server refuses us, or the results cannot be written.
        StoppedError: No question was answered for longer than the client is patient.
    """
    asker = _Asker(client, dataset, results, settings, told)
    left = iter([question for question in questions if question.index not in results.answered])
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(asker.work(left))
    except BaseExceptionGroup as errors:
        ends, others = errors.split((CommandError, StoppedError))
        if ends is None or others is not None:
            raise
        # The first stopped the other workers; what they had to say is the same.
        raise ends.exceptions[0] from None


class _Asker:
    def __init__(self, client: Client, dataset: Dataset, results: Results, settings: Settings, told: Told) -> None:
        self._client = client
        self._dataset = dataset
        self._results = results
        self._settings = settings
        self._told = told

    async def work(self, left: Iterator[Question]) -> None:
        for question in left:
            started = time.monotonic()
            record: Answered | Failed
            gone = False
            try:
                body = await asyncio.to_thread(self._body, question)
                record = _answered(question, await self._client.ask(body))
            except NoAnswerError as error:
                record, gone = _failed(question, str(error), started, error.status), error.gone
            except (PictureError, OSError) as error:
                record = _failed(question, f"its picture: {error}", started)
            self._results.add(record)
            self._told(record)
            if gone:
                raise StoppedError("no question is answered any more, so the rest was not asked")

    def _body(self, question: Question) -> bytes:
        try:
            pictures = self._dataset.pictures(question)
        except CommandError as error:
            raise PictureError(str(error)) from error
        return json.dumps(request_of(question, pictures, self._settings)).encode()


def request_of(question: Question, pictures: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The chat completion request: pictures first, as VLMEvalKit has them. The sampling is left to the server."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    parts.append({"type": "text", "text": prompt_of(question)})
    body: dict[str, Any] = {"model": settings.model, "messages": [{"role": "user", "content": parts}]}
    if settings.mode:
        body["thinking_with_images"] = settings.mode == "thinking-with-images"
    if settings.max_tokens:
        body["max_tokens"] = settings.max_tokens
    return body


def _failed(question: Question, reason: str, started: float, status: int | None = None) -> Failed:
    seconds = round(time.monotonic() - started, 3)
    return Failed(index=question.index, failed=reason, status=status, seconds=seconds)


def _answered(question: Question, reply: Reply) -> Answered:
    extracted = option_of(reply.text, question.options)
    return Answered(
        index=question.index,
        prediction=reply.text,
        extracted=extracted,
        correct=extracted == question.answer,
        category=question.category,
        seconds=reply.seconds,
        stop_reason=reply.stop_reason,
        turns=reply.turns,
        usage=reply.usage,
    )
