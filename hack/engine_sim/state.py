"""All that one running simulator consists of, and the record of the requests it got."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from hack.engine_sim.engine import Engine
from hack.engine_sim.faults import Faults, Injector
from hack.engine_sim.flags import ServeOptions
from hack.engine_sim.media import MediaCache
from hack.engine_sim.metrics import Metrics
from hack.engine_sim.policy.scenario import Scenario
from hack.engine_sim.prompt import ImageRef
from hack.engine_sim.versions import Behaviour

KEPT_REQUESTS = 1000
_T = TypeVar("_T")


@dataclass
class Seen:
    """What is kept of a chat request, for tests to look at through `/sim/requests`."""

    id: str
    received_at: float = field(default_factory=time.time)
    body_bytes: int = 0
    stream: bool = False
    model: str | None = None
    cache_salt: str | None = None
    max_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    include_stop_str_in_output: bool = False
    roles: list[str] = field(default_factory=list)
    images: list[ImageRef] = field(default_factory=list)
    scenario: str | None = None
    state: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    status: int | None = None
    error: str | None = None

    def json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class Simulator:
    """The parts of a running simulator, wired up."""

    def __init__(
        self, options: ServeOptions, behaviour: Behaviour, scenarios: Sequence[Scenario], faults: Faults | None = None
    ):
        self.options = options
        self.behaviour = behaviour
        self.scenarios = scenarios
        self.injector = Injector(faults or Faults())
        self.metrics = Metrics(options.served_names[0])
        self.media = MediaCache(int(options.mm_cache_gib * 2**30))
        self.engine = Engine(
            self.metrics,
            self.injector,
            max_num_seqs=options.max_num_seqs,
            max_queued=options.max_queued_requests,
            prefix_caching=options.prefix_caching,
            stream_interval=options.stream_interval,
        )
        self._counted = (0, 0)
        self.seen: deque[Seen] = deque(maxlen=KEPT_REQUESTS)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="renderer")  # one: the media cache has no lock

    async def rendered(self, work: Callable[[], _T]) -> _T:
        """Do the work of reading a prompt and its images off the event loop, one request at a time."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._renderer, work)
        finally:
            self._count_media()

    def _count_media(self) -> None:
        queries, hits = self._counted
        self._counted = self.media.queries, self.media.hits
        self.metrics.mm_queries.inc(self._counted[0] - queries)
        self.metrics.mm_hits.inc(self._counted[1] - hits)
