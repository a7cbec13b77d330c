"""One S1VLDeployment from what is wanted to what is so: the whole story, level-based, over and over."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from s1vl_operator import events, sparing
from s1vl_operator.api.reasons import Nature, Reason
from s1vl_operator.api.v1alpha1 import InvalidSpec, S1VLDeployment, parse
from s1vl_operator.cluster.apply import Applier
from s1vl_operator.cluster.kinds import (
    AUTOSCALERS,
    CONFIG_MAP,
    POD,
    S1VL_DEPLOYMENT,
    Manifest,
    kind_of,
)
from s1vl_operator.cluster.outcome import Failure, Obstacle, Result
from s1vl_operator.cluster.port import Cluster
from s1vl_operator.desired import (
    Context,
    Protocol,
    autoscaling,
    desired_secrets,
    desired_state,
    names,
    orchestrator,
    protocols,
)
from s1vl_operator.engine_health import EnginePod, Health
from s1vl_operator.looking import Looker
from s1vl_operator.observe import Hindrance, Snapshot, engines, invalid_status, sandboxes, status
from s1vl_operator.observe.pods import is_ready, pod_url, unexplained
from s1vl_operator.orchestrator_probe import Probe
from s1vl_operator.telemetry import Metrics
from s1vl_operator.telling import Teller

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""(namespace, name) of an S1VLDeployment."""

LOOK_AGAIN_READY = 30.0
LOOK_AGAIN_WORKING = 15.0
LOOK_AGAIN_UNEXPLAINED = 5.0
LOOK_AGAIN_SOON = 2.0
"""Seconds until the next look without an event: when all is well or as somebody chose (only the orchestrator's word can
change unseen), while pods are on their way (they announce themselves), while one does not start and nothing says why
(Event objects, which are not watched, may), and while only the orchestrator's word or a deletion is due."""

HUNG_GRACE_SECONDS = 5
"""Seconds that a hung engine gets to say its last words in its log."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass
class Reconciler:
    """Works on one key at a time; safe to be used by several workers with different keys.

    Attributes:
        cluster: where everything is.
        applier: what brings objects about.
        probe: what asks the orchestrators.
        health: what watches the engines' progress.
        context: the operator's surroundings as they are now.
        metrics: what is counted.
        instance: the operator's pod, for events.
        settled: until then no sandbox that is awake falls asleep: while the API server was away nobody could renew the
            Lease of one that is in use.
        now: the wall clock, in UTC.
    """

    cluster: Cluster
    applier: Applier
    probe: Probe
    health: Health
    context: Callable[[], Context]
    metrics: Metrics
    instance: str
    settled: datetime = _LONG_AGO
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        self._looker = Looker(self.cluster)
        self._teller = Teller(self.cluster, self.metrics, self.instance, self.now)

    async def __call__(self, key: Key) -> float | None:
        """Do everything that there is to do for `key`; returns the seconds after which to look again without an event.

        Raises:
            ApiError: a write met another one, or the API server is overloaded; to be tried again.
            Unreachable: the API server does not answer; to be tried again.
        """
        cr = await self.cluster.read(S1VL_DEPLOYMENT, *key)
        if cr is None or cr["metadata"].get("deletionTimestamp"):
            # Its objects are the garbage collector's; its claims stay.
            self.metrics.forget(key)
            self.health.watch(key, [])
            return None
        try:
            deployment = parse(cr)
        except InvalidSpec as problem:
            await self._teller(cr, invalid_status(cr, problem, self._time()), [])
            return None
        observed, pods = await self._looker(deployment, keda=self.context().keda)
        hung, suspected = self._hung(key, deployment, pods, observed)
        protocol = await self._protocol(deployment, observed, pods)
        idle = sandboxes.until_sleep(deployment, observed, self.now(), self.settled)
        context = replace(
            self.context(),
            protocol=protocol.value,
            hung_engines=tuple(pod["status"]["podIP"] for pod in suspected),
            sandbox_pods=sandboxes.addresses(deployment, pods),
            asleep=frozenset(tenant for tenant, seconds in idle.items() if seconds <= 0),
        )
        done = await self._bring_about(deployment, observed, context, hung, pods)
        snapshot = await self._snapshot(deployment, {**observed, **done.objects}, pods)
        unmet = Hindrance(protocol.reason, protocol.message) if protocol.reason else None
        names_of_hung = frozenset(pod["metadata"]["name"] for pod in suspected)
        snapshot = replace(
            snapshot,
            hindrance=_hindrance(deployment, done),
            autoscaler=autoscaling.missing(deployment, self.context()),
            protocol=unmet,
            hung=names_of_hung,
        )
        new = status(deployment, snapshot, self._time())
        changes = events.changes(done.created, done.changed, done.removed, done.restarted, done.replaced)
        await self._teller(cr, new, changes)
        soon = min((seconds for seconds in idle.values() if seconds > 0), default=LOOK_AGAIN_READY)
        return min(_look_again(new, done, snapshot), soon)

    def _hung(
        self, key: Key, deployment: S1VLDeployment, pods: list[Manifest], observed: dict[tuple[str, str], Manifest]
    ) -> tuple[list[Manifest], list[Manifest]]:
        """The engine pods that have requests and make no progress; and these with those of which it was said before."""
        spec = deployment.spec.engine
        told = orchestrator.told_hung(_config(deployment, observed, orchestrator.PODS_KEY))
        started = engines.started(engines.of(deployment, pods))
        targets = [
            EnginePod(
                pod["metadata"]["uid"],
                pod_url(pod, spec.port),
                spec.stall_timeout_seconds,
                suspected=pod["status"]["podIP"] in told,
            )
            for pod in started
        ]
        hung = self.health.watch(key, targets)
        suspected = hung | self.health.suspects(key)
        by_uid = {pod["metadata"]["uid"]: pod for pod in started}
        return [by_uid[uid] for uid in by_uid if uid in hung], [by_uid[uid] for uid in by_uid if uid in suspected]

    async def _protocol(
        self, deployment: S1VLDeployment, observed: dict[tuple[str, str], Manifest], pods: list[Manifest]
    ) -> Protocol:
        """The protocol for the configuration; a new text replaces another only when an orchestrator takes it."""
        ref = deployment.spec.orchestrator.protocol_ref
        found = await self.cluster.read(CONFIG_MAP, deployment.namespace, ref.name) if ref else None
        config = _config(deployment, observed)
        chosen = protocols.choose(deployment, found, config)
        if ref is None or chosen.reason or chosen.value == protocols.in_use(config):
            return chosen
        # Refused only once it is there, a pod that starts anew would have no configuration at all.
        message = await self.probe.objection(_asked(deployment, pods), chosen.value)
        if message is None:
            return protocols.untried(chosen, config)
        return protocols.refused(deployment, config, message) if message else chosen

    async def _bring_about(
        self,
        deployment: S1VLDeployment,
        observed: dict[tuple[str, str], Manifest],
        context: Context,
        hung: list[Manifest],
        pods: list[Manifest],
    ) -> Result:
        if deployment.spec.paused:
            return Result()
        owner = deployment.metadata.uid
        done = await self.applier.make_secrets(desired_secrets(deployment, context), owner)
        uids = {name: one["metadata"]["uid"] for (_, name), one in done.objects.items()}
        manifests = desired_state(deployment, replace(context, secret_uids=uids))
        if shrinking := sparing.shrinking(deployment, manifests, observed):
            reports = await self.probe(_asked(deployment, pods))
            await sparing.spare(self.cluster, sparing.costs(deployment, shrinking, pods, reports))
        # Of two autoscalers of one target KEDA refuses the second, and one that is left fights with `replicas`.
        scalers = {key: one for key, one in observed.items() if kind_of(one) in AUTOSCALERS}
        done.removed += await self.applier.prune(manifests, scalers, owner, ())
        observed = {key: one for key, one in observed.items() if "/".join(key) not in done.removed}
        applied = await self.applier.apply(manifests, observed, owner)
        applied.created[:0] = done.created
        applied.removed[:0] = done.removed
        applied.failures[:0] = done.failures
        if not applied.failures:
            secret_names = _secrets_of_left_tenants(deployment, observed)
            applied.removed += await self.applier.prune(manifests, observed, owner, secret_names)
        for pod in engines.to_restart(hung, self.now()):
            name = pod["metadata"]["name"]
            # It computes nothing that could be waited for.
            await self.cluster.delete(POD, deployment.namespace, name, pod["metadata"]["uid"], grace=HUNG_GRACE_SECONDS)
            applied.restarted.append(f"Pod/{name}")
        return applied

    async def _snapshot(
        self,
        deployment: S1VLDeployment,
        objects: dict[tuple[str, str], Manifest],
        pods: list[Manifest],
    ) -> Snapshot:
        return Snapshot(
            objects=objects,
            pods=pods,
            events=await self._looker.events(deployment.namespace, objects, pods),
            reports=await self.probe(_asked(deployment, pods)),
            config_version=hashlib.sha256(_config(deployment, objects).encode()).hexdigest(),
        )

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


_REASONS = {
    Obstacle.REFUSED: Reason.APPLY_FAILED,
    Obstacle.IMMUTABLE: Reason.IMMUTABLE_FIELD,
    Obstacle.TAKEN: Reason.NAME_TAKEN,
    Obstacle.GOING: Reason.RECONCILING,
}


def _hindrance(deployment: S1VLDeployment, done: Result) -> Hindrance | None:
    if deployment.spec.paused:
        return Hindrance(Reason.PAUSED, "spec.paused is true")
    if not done.failures:
        return None
    # What waits for a deletion resolves itself: anything else is told first.
    worst: Failure = min(done.failures, key=lambda failure: failure.obstacle is Obstacle.GOING)
    more = f" (and {len(done.failures) - 1} more)" if len(done.failures) > 1 else ""
    return Hindrance(_REASONS[worst.obstacle], f"{worst.kind} {worst.name}: {worst.message}{more}")


def _config(
    deployment: S1VLDeployment, objects: dict[tuple[str, str], Manifest], key: str = orchestrator.CONFIG_KEY
) -> str:
    """The text of the orchestrator's configuration, or of another key of its ConfigMap; "" when there is none."""
    found = objects.get(("ConfigMap", names.orchestrator(deployment)), {})
    return str((found.get("data") or {}).get(key) or "")


def _asked(deployment: S1VLDeployment, pods: list[Manifest]) -> list[Manifest]:
    """The orchestrators to ask: the ready ones, or the others while none is ready.

    One that refuses its very first configuration does not get ready, and knows why.
    """
    running = Snapshot(objects={}, pods=pods).pods_of(names.selector(deployment, "orchestrator"))
    ready = [pod for pod in running if is_ready(pod)]
    return ready or [pod for pod in running if (pod.get("status") or {}).get("podIP")]


def _secrets_of_left_tenants(deployment: S1VLDeployment, observed: dict[tuple[str, str], Manifest]) -> list[str]:
    staying = {tenant.name for tenant in deployment.spec.tenants}
    labels = [one["metadata"].get("labels") or {} for one in observed.values()]
    left = sorted({tenant for one in labels if (tenant := one.get(names.TENANT_LABEL)) and tenant not in staying})
    return [
        name for tenant in left for name in (names.sandbox(deployment, tenant), names.tenant_key(deployment, tenant))
    ]


def _look_again(new: dict[str, Any], done: Result, snapshot: Snapshot) -> float:
    conditions = {condition["type"]: condition for condition in new["conditions"]}
    if any(failure.obstacle is Obstacle.GOING for failure in done.failures):
        return LOOK_AGAIN_SOON
    stable = conditions["Progressing"]["reason"] == Reason.STABLE
    waking = any(tenant["reason"] == Reason.SANDBOX_WAKING for tenant in new["tenants"])
    if Reason(conditions["Ready"]["reason"]).nature is Nature.FINE and not (waking and stable):
        return LOOK_AGAIN_READY
    if stable:
        return LOOK_AGAIN_SOON
    return LOOK_AGAIN_UNEXPLAINED if unexplained(snapshot) else LOOK_AGAIN_WORKING
