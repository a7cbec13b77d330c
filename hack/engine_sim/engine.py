"""The engine: a queue, a batch of running requests, and steps that give each running request its next token."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hack.engine_sim import errors
from hack.engine_sim.blocks import CAPACITY_BLOCKS, PrefixCache, blocks_for
from hack.engine_sim.faults import Injector
from hack.engine_sim.metrics import Metrics
from hack.engine_sim.tokens import Token


@dataclass(eq=False)
class Generation:
    """One request in the engine. Times are in seconds of the event loop's clock.

    Attributes:
        prompt: the prompt's tokens, images expanded.
        output: all tokens that will be generated, in order.
        reason: vLLM's finish reason once all of them are out.
        salt: the request's `cache_salt`.
        delay: seconds between tokens, on top of the fault's.
        cached: leading prompt tokens found in the prefix cache, known from the first step on.
    """

    prompt: Sequence[int]
    output: Sequence[Token]
    reason: str
    salt: str | None
    delay: float
    arrived: float
    cached: int = 0
    done: int = 0
    due: float = 0.0
    last: float = 0.0
    error: Exception | None = None
    ready: list[Token] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        """All tokens were generated."""
        return self.done == len(self.output)


class Engine:
    """Runs generations; at most `max_num_seqs` at once, and as many as the KV cache holds."""

    def __init__(
        self,
        metrics: Metrics,
        injector: Injector,
        *,
        max_num_seqs: int,
        max_queued: int | None,
        prefix_caching: bool,
        stream_interval: int,
    ):
        self._metrics = metrics
        self._injector = injector
        self._max_num_seqs = max_num_seqs
        self._max_queued = max_queued
        self._prefix = PrefixCache() if prefix_caching else None
        self._stream_interval = stream_interval
        self._running: list[Generation] = []
        self._waiting: deque[Generation] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    @property
    def load(self) -> int:
        """Requests running and waiting."""
        return len(self._running) + len(self._waiting)

    def submit(
        self, prompt: Sequence[int], output: Sequence[Token], *, reason: str, salt: str | None, delay: float
    ) -> Generation:
        """Queue a generation.

        Raises:
            ApiError: 500 while shutting down, 503 when the queue is at its cap.
        """
        if self._draining:
            raise errors.draining()
        if self._max_queued is not None and len(self._waiting) >= self._max_queued:
            self._metrics.rejected_requests.inc()
            raise errors.ApiError(
                f"The request queue is full ({self._max_queued} waiting).", status=503, kind="ServiceUnavailableError"
            )
        generation = Generation(prompt, output, reason, salt, delay, asyncio.get_running_loop().time())
        self._waiting.append(generation)
        self._gauges()
        self._wake.set()
        return generation

    async def tokens(self, generation: Generation) -> AsyncIterator[list[Token]]:
        """Yield the tokens of a generation as they come; leaving early aborts it.

        Raises:
            ApiError: when the engine was stopped under it.
        """
        try:
            while True:
                await generation.changed.wait()
                generation.changed.clear()
                if generation.ready:
                    batch, generation.ready = generation.ready, []
                    yield batch
                if generation.error:
                    raise generation.error
                if generation.finished and not generation.ready:
                    return
        finally:
            self._abort(generation)

    async def idle(self) -> None:
        """Wait until no request is running or waiting."""
        await self._idle.wait()

    def wake(self) -> None:
        """Look at the faults again."""
        self._wake.set()

    def clear_prefix_cache(self) -> None:
        """Forget all prefixes."""
        if self._prefix:
            self._prefix.clear()

    def refuse_new(self) -> None:
        """Answer new requests with vLLM's 500 from now on; running ones go on."""
        self._draining = True

    def abort_all(self) -> None:
        """End every request with an error, as an engine that dies does."""
        for generation in [*self._running, *self._waiting]:
            generation.error = errors.internal("EngineCore encountered an issue. See stack trace for the root cause.")
            generation.changed.set()

    async def run(self) -> None:
        """Take steps for ever. Cancelled, the requests that are left stay open without another token."""
        clock = asyncio.get_running_loop().time
        while True:
            if self._injector.faults.hang or not (self._running or self._waiting):
                self._wake.clear()
                await self._wake.wait()
                continue
            prefilled = self._admit(clock())
            now = clock()
            due = [generation for generation in self._running if generation.due <= now]
            if due or prefilled:
                self._step(due, prefilled, now)
            await self._pause()

    async def _pause(self) -> None:
        next_due = min((generation.due for generation in self._running), default=0.0)
        pause = next_due - asyncio.get_running_loop().time()
        if pause <= 0:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    def _admit(self, now: float) -> int:
        """Move waiting requests into the batch; return how many prompt tokens have to be computed for them."""
        computed = 0
        while self._waiting and len(self._running) < self._max_num_seqs and self._fits(self._waiting[0]):
            generation = self._waiting.popleft()
            if self._prefix is not None:
                generation.cached = self._prefix.match(generation.prompt, generation.salt)
                self._prefix.insert(generation.prompt, generation.salt)
                self._metrics.prefix_queries.inc(len(generation.prompt))
                self._metrics.prefix_hits.inc(generation.cached)
            generation.due = now + self._injector.faults.first_token_delay_ms / 1000
            self._metrics.prompt_tokens.inc(len(generation.prompt))
            self._metrics.queue_seconds.observe(now - generation.arrived)
            computed += len(generation.prompt) - generation.cached
            self._running.append(generation)
        if computed:
            self._gauges()
        return computed

    def _fits(self, generation: Generation) -> bool:
        return self._blocks_used() + blocks_for(len(generation.prompt)) <= CAPACITY_BLOCKS or not self._running

    def _blocks_used(self) -> int:
        return sum(blocks_for(len(running.prompt) + running.done) for running in self._running)

    def _step(self, due: list[Generation], prefilled: int, now: float) -> None:
        pause = self._injector.faults.token_delay_ms / 1000
        for generation in due:
            generation.ready.append(generation.output[generation.done])
            generation.done += 1
            since = generation.arrived if generation.done == 1 else generation.last
            series = self._metrics.first_token_seconds if generation.done == 1 else self._metrics.inter_token_seconds
            series.observe(now - since)
            generation.last = now
            generation.due = now + pause + generation.delay
            if generation.finished:
                self._finish(generation, now)
            if generation.finished or generation.done == 1 or generation.done % self._stream_interval == 0:
                generation.changed.set()
        self._metrics.iteration_tokens.observe(prefilled + len(due))
        self._metrics.generation_tokens.inc(len(due))

    def _finish(self, generation: Generation, now: float) -> None:
        self._running.remove(generation)
        if self._prefix is not None:
            made = [token.id for token in generation.output[: generation.done]]
            self._prefix.insert([*generation.prompt, *made], generation.salt)
        self._metrics.finished[generation.reason].inc()
        self._metrics.request_seconds.observe(now - generation.arrived)
        self._gauges()

    def _abort(self, generation: Generation) -> None:
        if generation in self._running:
            self._running.remove(generation)
        elif generation in self._waiting:
            self._waiting.remove(generation)
        else:
            return
        # A request whose client left is in none of vLLM's counts.
        if generation.error:
            self._metrics.finished["error"].inc()
        self._gauges()

    def _gauges(self) -> None:
        if self.load:
            self._idle.clear()
        else:
            self._idle.set()
        self._metrics.running.set(len(self._running))
        self._metrics.waiting.set(len(self._waiting))
        self._metrics.waiting_capacity.set(len(self._waiting))
        self._metrics.kv_usage.set(min(1.0, self._blocks_used() / CAPACITY_BLOCKS))
