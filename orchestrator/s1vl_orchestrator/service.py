"""The orchestrator as a whole: follows its configuration, keeps a `Tenant` for each tenant, and knows how it fares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from s1vl_orchestrator.addresses import Resolve, resolve_host
from s1vl_orchestrator.admission import KeyRing, keys_of
from s1vl_orchestrator.config import ConfigError, SecretRef
from s1vl_orchestrator.engine import EngineClient
from s1vl_orchestrator.engine_pods import EnginePods
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.jobs import Place, Tools
from s1vl_orchestrator.leases import Usage
from s1vl_orchestrator.retention import Retention
from s1vl_orchestrator.sandbox import sandbox_connections
from s1vl_orchestrator.sandbox_keys import SandboxKeys
from s1vl_orchestrator.sandbox_pod import Watching, WatchTimes
from s1vl_orchestrator.sandbox_pods import SandboxPods
from s1vl_orchestrator.sources import POLL_SECONDS, POLLS_PER_SECRET, Snapshot, Source, SourceError, read_snapshot
from s1vl_orchestrator.telemetry import Metrics
from s1vl_orchestrator.tenants import Tenant
from s1vl_orchestrator.workspace import EngineNames

log = logging.getLogger(__name__)

JOBS_PREPARED_AT_ONCE = 3
NO_KEY = "EMPTY"
"""What the model card and vLLM's users give to OpenAI's client, which insists on a key, when there is none."""
DOUBT_SECONDS = 2.0
"""Between two readings of a Secret whose key a sandbox refuses."""
STOP_SECONDS = 5.0
"""How long a request that is ended may tidy up."""


class Service:
    """Everything that lives as long as the process.

    Attributes:
        leaving: Set at SIGTERM: connections are closed with their answers, so that clients turn to other instances.
        draining: Set some seconds later: no new requests, running ones finish.
        started_at: Unix time in seconds.
    """

    def __init__(
        self,
        source: Source,
        *,
        times: WatchTimes | None = None,
        poll_seconds: float = POLL_SECONDS,
        resolve: Resolve = resolve_host,
    ) -> None:
        self.metrics = Metrics()
        self.workers = Workers()
        self.tools = Tools(self.workers, self.metrics, asyncio.Semaphore(JOBS_PREPARED_AT_ONCE))
        # Apart, so that a queue of large pictures does not look like a sandbox that does not answer.
        self._canary_workers = Workers()
        self._watching = Watching(sandbox_connections(), self._canary_workers, self.metrics, times or WatchTimes())
        # Apart too: who looks at many pictures must not hold up the jobs.
        self.serving_workers = Workers()
        self.leaving = False
        self.draining = False
        self.started_at = int(time.time())
        self.snapshot: Snapshot | None = None
        self.config_problem = "no configuration has been read yet"
        self.config_refused = False
        self.tenants: dict[str, Tenant] = {}
        self._source = source
        self._poll_seconds = poll_seconds
        self._secrets_due = 0.0
        self._hurry = asyncio.Event()
        self._doubtful: set[SecretRef] = set()
        self._doubted: dict[str, float] = {}
        self._keys = KeyRing([])
        # Only until the Secret is there: other instances would not share it, which costs cache hits and nothing else.
        self._own_salt = secrets.token_bytes(32)
        self._engine_pods = EnginePods(self.metrics, resolve)
        self._resolve = resolve
        self._serving: set[Callable[[], None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._retention = Retention(self.metrics)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def engine_problem(self) -> str:
        """Why the engine takes no requests, or ""."""
        return self._engine_pods.problem if self.snapshot else "not configured"

    async def start(self) -> None:
        """Read the configuration once and begin to follow it. What is wrong with it is reported, not raised."""
        await self._reload()
        self._tasks = [asyncio.create_task(self._follow_config()), asyncio.create_task(self._retention.run())]

    async def close(self) -> None:
        """Stop everything and close connections; sessions that are left are deleted where that is possible."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(tenant.close() for tenant in self.tenants.values()))
        await self._engine_pods.close()
        await self._watching.http.close()
        await self._source.close()
        self.workers.close()
        self._canary_workers.close()
        self.serving_workers.close()
        self._retention.close()

    @property
    def active(self) -> int:
        """Requests that are being served."""
        return len(self._serving)

    async def drain(self, seconds: float) -> None:
        """Take no new requests and wait until the running ones are done; those that take longer are ended."""
        self.leaving = self.draining = True
        log.info("draining: %d requests are running", self.active)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests are ended after %.0f s", self.active, seconds)
            for stop in list(self._serving):
                stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._idle.wait()

    @contextlib.contextmanager
    def serving(self, stop: Callable[[], None]) -> Iterator[None]:
        """Serve a request, which `stop` ends early. Raises ApiError `shutting_down` while draining."""
        if self.draining:
            raise ApiError(ErrorCode.SHUTTING_DOWN, "This instance is shutting down.", retry_after=1)
        self._serving.add(stop)
        self._idle.clear()
        try:
            yield
        finally:
            self._serving.remove(stop)
            if not self._serving:
                self._idle.set()

    def authenticate(self, authorization: str | None, api_key: str | None) -> Tenant:
        """The tenant of a request: by `X-API-Key` or `Authorization: Bearer`, or the anonymous one without any key.

        With both, both must be right and of the same tenant: what a proxy has checked must not be another one's.

        Raises:
            ApiError: `unauthorized`, or `not_configured` while there is no configuration.
        """
        if self.snapshot is None:
            raise ApiError(ErrorCode.NOT_CONFIGURED, f"Not configured: {self.config_problem}.", retry_after=5)
        scheme, _, bearer = (authorization or "").partition(" ")
        keys = [key for key in (api_key, bearer.strip() if scheme.lower() == "bearer" else "") if key]
        names = {self._keys.tenant(key) for key in keys if key != NO_KEY}
        # Some other scheme is meant as a credential, and is none.
        if not names and (keys or not authorization):
            names = {self.snapshot.config.anonymous_tenant}
        name = names.pop() if len(names) == 1 else None
        tenant = self.tenants.get(name) if name else None
        if tenant is None:
            problem = "The API key is not valid." if keys or authorization else "An API key is required."
            raise ApiError(ErrorCode.UNAUTHORIZED, f"{problem} Send Authorization: Bearer KEY or X-API-Key: KEY.")
        return tenant

    def describe(self) -> dict[str, Any]:
        """The body of `GET /internal/tenants`."""
        return {
            "configVersion": self.snapshot.version if self.snapshot else "",
            "message": self.config_problem,
            "refused": self.config_refused,
            "engine": {
                "ready": not self.engine_problem,
                "message": self.engine_problem,
                "pods": self._engine_pods.describe(),
            },
            "tenants": [tenant.describe() for tenant in self.tenants.values()],
        }

    def _sandboxes(self, tenant: str, usage: Usage) -> SandboxPods:
        keys = SandboxKeys(lambda: self._doubt_key(tenant))
        return SandboxPods(
            tenant, keys, self._watching, self._resolve, look=self._hurry.set, wake_until=usage.wake_until
        )

    def _doubt_key(self, tenant: str) -> None:
        """Have the Secret with the key of a tenant's sandbox read again, though not all the time."""
        now = time.monotonic()
        if self.snapshot and now >= self._doubted.get(tenant, -math.inf) + DOUBT_SECONDS:
            self._doubted[tenant] = now
            tenants = self.snapshot.config.tenants
            self._doubtful |= {ref for t in tenants if t.name == tenant and (ref := t.sandbox.api_key_secret)}
            self._hurry.set()

    async def _follow_config(self) -> None:
        while True:
            self._hurry.clear()
            waiting = any(tenant.place.sandboxes.waiting for tenant in self.tenants.values())
            pause = min(self._poll_seconds, self._watching.times.urgent) if waiting else self._poll_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            try:
                await self._reload()
            except Exception:  # One bad round must not end all following ones.
                log.exception("following the configuration failed")

    async def _reload(self) -> None:
        all_secrets = time.monotonic() >= self._secrets_due
        doubtful, self._doubtful = self._doubtful, set()
        try:
            snapshot = await read_snapshot(self._source, self.snapshot, all_secrets=all_secrets, doubtful=doubtful)
        except (SourceError, ConfigError) as error:
            problem = f"{'invalid configuration refused' if isinstance(error, ConfigError) else 'unreadable'}: {error}"
            if problem != self.config_problem:
                self.metrics.config_errors.inc()
                log.error(  # noqa: TRY400 - the message says it all
                    "%s; %s", problem, "the last valid one stays in use" if self.snapshot else "there is none yet"
                )
            self.config_problem, self.config_refused = problem, isinstance(error, ConfigError)
            return
        if all_secrets:
            self._secrets_due = time.monotonic() + POLLS_PER_SECRET * self._poll_seconds
        self.config_problem, self.config_refused = "", False
        last = self.snapshot
        if last is None or replace(snapshot, pods=last.pods) != last:
            await self._apply(snapshot)
            log.info("configuration %s in use: tenants %s", snapshot.version[:12], ", ".join(self.tenants) or "none")
        elif snapshot.pods != last.pods:
            self.snapshot = snapshot
            self._engine_pods.follow(snapshot.config.engine, snapshot.hung)
            for name, tenant in self.tenants.items():
                tenant.place.sandboxes.relist(snapshot.listing(name))

    async def _apply(self, snapshot: Snapshot) -> None:
        config = snapshot.config
        self._engine_pods.follow(config.engine, snapshot.hung)
        engine = EngineClient(config.engine, self._engine_pods, self.metrics)
        self._keys = KeyRing(
            (tenant.name, key) for tenant in config.tenants for key in keys_of(snapshot.secret(tenant.api_key_secret))
        )
        current: dict[str, Tenant] = {}
        for item in config.tenants:
            old = self.tenants.get(item.name)
            usage = old.usage if old else Usage(item.name, self._source.renew_lease, self.metrics)
            place = Place(
                tenant=item.name,
                config=config,
                paths=config.paths(item),
                engine=engine,
                sandboxes=old.place.sandboxes if old else self._sandboxes(item.name, usage),
                names=EngineNames(snapshot.secret(config.cache_salt_secret) or self._own_salt, item.name),
            )
            key = snapshot.secret(item.sandbox.api_key_secret)
            place.sandboxes.follow(
                item.sandbox.url.rstrip("/"),
                place.paths,
                key.decode() if key else None,
                snapshot.listing(item.name),
                takes_grants=config.sandbox.profile == "s1vl",
            )
            tenant = old or Tenant(item, place, usage, self.metrics, retry_after=self._watching.times.retry_most)
            has_key = bool(keys_of(snapshot.secret(item.api_key_secret))) or config.anonymous_tenant == item.name
            tenant.update(item, place, has_key=has_key)
            current[item.name] = tenant
        gone = [tenant for name, tenant in self.tenants.items() if name not in current]
        self.tenants, self.snapshot = current, snapshot
        for tenant in gone:
            await tenant.close()
        self._retention.follow(config)
