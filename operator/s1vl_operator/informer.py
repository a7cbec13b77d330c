"""Runs kopf in a thread with an event loop of its own.

kopf takes over the loop that it runs in: it installs signal handlers, and when it stops it cancels every task that it
did not know before. In its own loop it can do that; in ours the workers finish what they have begun.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

import aiohttp
import kopf
from kopf._cogs.clients.errors import APINotFoundError, APIServerError, APITooManyRequestsError
from kopf._cogs.clients.watching import WatchingError

from s1vl_operator import handlers

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0

_PASSING = (
    aiohttp.ClientError,
    OSError,
    APIServerError,
    APITooManyRequestsError,
    # The CRD can be installed anew, and an API server that starts serves it late.
    APINotFoundError,
    # Likewise it may not know tokens yet; and that of a pod is replaced while it runs.
    kopf.LoginError,
    WatchingError,
)
"""What ends a watch and passes. A refusal for want of rights does not: kopf has waited for it."""


class Interrupted(Exception):  # noqa: N818 (an event more than an error)
    """The watching ended for a reason that passes; it can be started anew."""


class Informer:
    """Watches the cluster from `start` to `stop`.

    Args:
        enqueue: told of every S1VLDeployment that something happened to; called in the event loop of `start`.
        namespaces: to watch; empty for all.
    """

    def __init__(self, enqueue: handlers.Enqueue, namespaces: Sequence[str]) -> None:
        self._enqueue = enqueue
        self._namespaces = namespaces
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self.ended = asyncio.Event()
        """Set when the watching ended, wanted or not."""
        self._error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether kopf has started."""
        return self._ready.is_set()

    @property
    def alive(self) -> bool:
        """Whether it watches. A single watch that dies for good ends them all."""
        return self._thread is not None and self._thread.is_alive() and not self.ended.is_set()

    def start(self) -> None:
        """Start watching; from within the event loop in which keys are wanted."""
        loop = asyncio.get_running_loop()

        def enqueue(namespace: str, name: str, urgent: bool) -> None:
            self._from_thread(loop, lambda: self._enqueue(namespace, name, urgent))

        def ended() -> None:
            self._from_thread(loop, self.ended.set)

        def run() -> None:
            try:
                asyncio.run(self._watch(enqueue, ended))
            except BaseException as error:  # whatever it is, the main thread must hear of it
                self._error = self._error or error
            finally:
                ended()

        self._thread = threading.Thread(target=run, name="informer", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stop watching, and wait until it has stopped.

        Raises:
            RuntimeError: it does not; only the end of the process ends it.
        """
        self._stop.set()
        if self._thread is None:
            return
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"the watching did not stop within {STOP_SECONDS:.0f} s")

    def failure(self) -> Exception:
        """Why the watching ended by itself: Interrupted, or what must not be passed over."""
        if isinstance(self._error, _PASSING):
            return Interrupted(f"the watching ended: {self._error!r}")
        failure = RuntimeError("the watching ended")
        failure.__cause__ = self._error
        return failure

    async def _watch(self, enqueue: handlers.Enqueue, ended: Callable[[], None]) -> None:
        # kopf warns that it cannot handle signals in a thread; that is the point.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(enqueue),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            ready_flag=self._ready,
            stop_flag=self._stop,
        )
        # The first that ends takes the others with it, but kopf can hang on that way: tell of it before.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in done if not task.cancelled()]
        self._error = next((error for error in errors if error), None)
        ended()
        await kopf.run_tasks(tasks)

    @staticmethod
    def _from_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop was closed: nobody is left to be told.
            logger.debug("An event came after the end")
