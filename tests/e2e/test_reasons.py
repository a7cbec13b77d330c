"""Status tells each trouble as soon as the cluster shows it, and its end; a table says how soon."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from hack.deploy import OPERATOR_NAMESPACE, add_resource
from hack.kube import Kube, wait_for
from s1vl_operator.api.reasons import Nature, Reason, Topic
from s1vl_operator.api.runbook import commands
from tests.e2e.conftest import Space, make_space
from tests.e2e.seen import CUSTOM_RESOURCES, EVENTS, PODS, Object, Seen, watching

FEW_GPUS = "reasons.s1vl.io/gpu"
"""An extended resource of which each node has two."""

PATIENCE = 180.0

Holds = Callable[[Object], bool]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong.

    Attributes:
        cr: the S1VLDeployment.
        told: the condition, or `tenant NAME`, that tells it.
        reason: how.
        shown: whether a pod or an Event, as the cluster has it, shows it.
        over: whether a pod shows that it is over.
        cause: whose remedy the message ends with, where it is not `reason`.
    """

    cr: str
    told: str
    reason: Reason
    shown: Holds
    over: Holds
    cause: Reason | None = None

    def entry(self, cr: Object) -> Object:
        """What a status that is about the newest spec says in that place; {} when it says nothing."""
        status = cr.get("status", {})
        if cr["metadata"]["name"] != self.cr or status.get("observedGeneration") != cr["metadata"]["generation"]:
            return {}
        key, name, listed = "type", self.told, status.get("conditions", [])
        if self.told.startswith("tenant "):
            key, name, listed = "name", self.told.removeprefix("tenant "), status.get("tenants", [])
        return next((one for one in listed if one[key] == name), {})

    def is_told(self, cr: Object) -> bool:
        return bool(self.entry(cr).get("reason") == self.reason)

    def is_told_over(self, cr: Object) -> bool:
        if not (entry := self.entry(cr)):
            return False
        reason = Reason(entry["reason"])
        if self.told.startswith("tenant "):
            # The sandbox is in order; whether its paths are is asked of the orchestrator, which has its own pace.
            return reason.topic not in (Topic.POD, Topic.SANDBOX)
        return reason.nature is Nature.FINE


@dataclass(frozen=True)
class Scene:
    """A namespace, and what is heard of it."""

    space: Space
    pods: Seen
    events: Seen
    crs: Seen
    measured: Tell

    def wait(self, trouble: Trouble, since: float) -> str:
        """Wait until the status tells it; returns the message."""
        found = self._wait(trouble, "begins", trouble.shown, trouble.is_told, since)
        assert found["message"].endswith(f". {(trouble.cause or trouble.reason).remedy}"), found
        return str(found["message"])

    def wait_over(self, trouble: Trouble, since: float) -> None:
        """Wait until the status tells that it is over."""
        self._wait(trouble, "is over", trouble.over, trouble.is_told_over, since)

    def _wait(self, trouble: Trouble, what: str, shown: Holds, told: Holds, since: float) -> Object:
        def both() -> tuple[float, float]:
            at = min((t for s in (self.pods, self.events) if (t := s.first(shown, since)) is not None), default=None)
            heard = self.crs.first(told, since)
            if at is None or heard is None:
                last = self.crs.last(lambda cr: cr["metadata"]["name"] == trouble.cr)
                raise LookupError(f"shown: {at is not None}, told: {heard is not None}, {last and last.get('status')}")
            return at, heard

        at, heard = wait_for(f"{trouble.cr}: {trouble.told} {trouble.reason} {what}", both, timeout=PATIENCE)
        entry = trouble.entry(self.crs.last(told) or {})
        seconds = max(0.0, heard - at)
        self.measured(
            f"{trouble.told:18} {trouble.reason:21} {what:8} {seconds:5.1f} s  "
            f"{entry['reason']}: {entry['message'][:120]}"
        )
        return entry


@contextlib.contextmanager
def watch(space: Space, measured: Tell) -> Iterator[Scene]:
    with watching(space.kube, space.name, PODS, EVENTS, CUSTOM_RESOURCES) as (pods, events, crs):
        yield Scene(space, pods, events, crs, measured)


@pytest.fixture
def scene(space: Space, measured: Tell) -> Iterator[Scene]:
    with watch(space, measured) as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def head(measured: Tell) -> None:
    measured("status.truth: seconds from the moment that the cluster itself shows something until status tells it")


def pods_of(cr: str, component: str, tenant: str = "") -> Holds:
    """Those that stay, of one part."""
    wanted = {"s1vl.io/deployment": cr, "app.kubernetes.io/component": component}
    wanted.update({"s1vl.io/tenant": tenant} if tenant else {})

    def holds(one: Object) -> bool:
        metadata = one["metadata"]
        return not metadata.get("deletionTimestamp") and wanted.items() <= metadata.get("labels", {}).items()

    return holds


def condition(pod: Object, kind: str) -> Object:
    return next((c for c in pod["status"].get("conditions", []) if c["type"] == kind), {})


def ready(whose: Holds) -> Holds:
    return lambda one: whose(one) and condition(one, "Ready").get("status") == "True"


def unscheduled(whose: Holds, word: str) -> Holds:
    return lambda one: whose(one) and word in condition(one, "PodScheduled").get("message", "")


def lost(whose: Holds) -> Holds:
    """The node controller has taken Ready from the pod."""
    wanted = {"Ready": "False", "ContainersReady": "True"}
    return lambda one: whose(one) and all(condition(one, kind).get("status") == is_ for kind, is_ in wanted.items())


def stopped(whose: Holds, *words: str) -> Holds:
    """A container waits, or ended, for one of these reasons."""

    def holds(one: Object) -> bool:
        if not whose(one):
            return False
        containers = [c for kind in ("initC", "c") for c in one["status"].get(f"{kind}ontainerStatuses", [])]
        return any(state.get("reason") in words for c in containers for state in c.get("state", {}).values())

    return holds


def event(reason: str, about: str) -> Holds:
    """An Event about an object whose name begins so."""
    return lambda one: one.get("reason") == reason and one["involvedObject"]["name"].startswith(about)


@dataclass(frozen=True)
class Node:
    """A node without a kubelet: the test says what one would say. Only pods that ask for it come to it."""

    kube: Kube
    name: str

    @property
    def pod(self) -> Object:
        """What in a pod's spec asks for it."""
        toleration = {"key": "s1vl.io/e2e", "operator": "Equal", "value": self.name}
        return {"nodeSelector": {"s1vl.io/e2e": self.name}, "tolerations": [toleration]}

    def report(self) -> None:
        """Say that it is there, as a kubelet does every few seconds."""
        room = {"cpu": "8", "memory": "16Gi", "pods": "20", "ephemeral-storage": "100Gi"}
        state = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        self._say("node", self.name, (), {"capacity": room, "allocatable": room, "conditions": [state]})

    def start(self, pod: Object) -> None:
        """Say that a pod's containers run and are ready."""
        kinds = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
        running = {"state": {"running": {"startedAt": _now()}}, "ready": True, "started": True}
        containers = [
            {"name": c["name"], "image": c["image"], "imageID": "", "restartCount": 0, **running}
            for c in pod["spec"]["containers"]
        ]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": _now()} for kind in kinds]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": containers}
        self._say("pod", pod["metadata"]["name"], ("-n", pod["metadata"]["namespace"]), status)

    def _say(self, kind: str, name: str, where: tuple[str, ...], status: Object) -> None:
        self.kube.kubectl("patch", kind, name, *where, "--subresource=status", "-p", json.dumps({"status": status}))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def node(kube: Kube, space: Space) -> Iterator[Node]:
    """Its pods go before the namespace does: nobody would say that they have ended."""
    name = f"e2e-{secrets.token_hex(4)}"
    taint = {"key": "s1vl.io/e2e", "value": name, "effect": "NoSchedule"}
    metadata = {"name": name, "labels": {"s1vl.io/e2e": name}}
    kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [taint]}})
    try:
        yield Node(kube, name)
    finally:
        kube.kubectl("delete", "s1vl", "--all", "-n", space.name)
        chosen = ("-n", space.name, "--field-selector", f"spec.nodeName={name}")
        kube.kubectl("delete", "pods", *chosen, "--force", "--grace-period=0")
        kube.kubectl("delete", "node", name)


@pytest.fixture
def absent_class(kube: Kube, space: Space) -> Iterator[str]:
    """The name of a storage class that does not exist, and of the volume of that class that may come."""
    yield space.name
    # It goes when its claim does.
    kube.kubectl("delete", "pv", space.name, "--ignore-not-found", "--wait=false")


def volume(space: Space, like: str, claim: str, name: str) -> Object:
    """A volume of the class `name` for a claim, made by hand: the one of another claim once more."""
    bound = space.kube.get("pvc", like, space.name)["spec"]["volumeName"]
    found: Object = json.loads(space.kube.kubectl("get", "pv", bound, "-o", "json"))
    own = {
        "storageClassName": name,
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": space.name, "name": claim},
    }
    return {**found, "metadata": {"name": name}, "spec": {**found["spec"], **own}, "status": {}}


def lose(scene: Scene, node: Node, whose: Holds) -> None:
    """Let a pod run on the node, which then says nothing more."""

    def runs() -> bool:
        # It goes on reporting until the pod is ready, however long that takes.
        node.report()
        pod = scene.pods.last(whose)
        if pod is None or not pod["spec"].get("nodeName"):
            return False
        if condition(pod, "Ready").get("status") != "True":
            node.start(pod)
            return False
        return True

    wait_for("a pod that runs on the other node", runs, timeout=PATIENCE, every=2)


def follow_the_runbook(scene: Scene, trouble: Trouble, message: str, node: str = "") -> None:
    """Run what the reason's page says to look at, with the names of the message."""
    words = {"NAME": trouble.cr, "NAMESPACE": scene.space.name, "OPERATOR_NAMESPACE": OPERATOR_NAMESPACE, "NODE": node}
    pod = scene.pods.last(lambda one: one["metadata"]["name"] in message)
    container = re.search(r"container ([a-z-]+) ", message)
    words |= {"POD": pod["metadata"]["name"] if pod else "", "CONTAINER": container[1] if container else ""}
    for command in commands(trouble.reason):
        pattern = "|".join(sorted(words, key=len, reverse=True))
        line = re.sub(rf"(?<![\w:])({pattern})\b(?!:)", lambda match: words[match[1]], command)
        arguments = shlex.split(line)[1:]
        assert "" not in arguments, line
        # A container that has just died for the first time has no previous run yet.
        wait_for(line, lambda arguments=arguments: (scene.space.kube.kubectl(*arguments), True)[1], timeout=PATIENCE)


def test_troubles_of_pods_are_told_and_so_is_their_end(
    scene: Scene, node: Node, absent_class: str, measured: Tell, kube: Kube
) -> None:
    names = ("oom", "crash", "pull", "mount", "lost")
    sandbox = {name: pods_of("parts", "sandbox", name) for name in names}
    # Its last words are its log's.
    dies = {"name": "kernels", "command": ["/bin/sh", "-c", "echo no licence >&2; exit 3"]}
    absent = {"name": "absent", "secret": {"secretName": "absent"}}
    wants_it = {"name": "kernels", "volumeMounts": [{"name": "absent", "mountPath": "/absent"}]}
    broken: dict[str, Object] = {
        "oom": {"resources": {"limits": {"memory": "24Mi"}}},
        "crash": {"podTemplate": {"spec": {"containers": [dies]}}},
        "pull": {"image": "registry.invalid/s1vl-sandbox:none"},
        "mount": {"podTemplate": {"spec": {"volumes": [absent], "containers": [wants_it]}}},
        "lost": {"podTemplate": {"spec": node.pod}},
    }

    def tenant(name: str, reason: Reason, shown: Holds) -> Trouble:
        return Trouble("parts", f"tenant {name}", reason, shown, ready(sandbox[name]))

    orchestrator, engine = pods_of("claim", "orchestrator"), pods_of("quota", "engine")
    unbound = unscheduled(orchestrator, "PersistentVolumeClaim")
    troubles = [
        tenant("oom", Reason.OOM_KILLED, stopped(sandbox["oom"], "OOMKilled")),
        tenant("crash", Reason.CRASH_LOOP_BACK_OFF, stopped(sandbox["crash"], "Error", "CrashLoopBackOff")),
        tenant("pull", Reason.IMAGE_PULL_BACK_OFF, stopped(sandbox["pull"], "ErrImagePull", "ImagePullBackOff")),
        tenant("mount", Reason.CONTAINER_CONFIG_ERROR, event("FailedMount", "parts-sandbox-mount")),
        tenant("lost", Reason.NODE_LOST, lost(sandbox["lost"])),
        Trouble("claim", "OrchestratorReady", Reason.PVC_PENDING, unbound, ready(orchestrator)),
    ]
    refused = Trouble(
        "quota", "EngineReady", Reason.QUOTA_EXCEEDED, event("FailedCreate", "quota-engine"), ready(engine)
    )
    space, none = scene.space, {"replicas": 0}
    claim = space.deployment("chem", cr="claim", engine=none)
    claim["spec"]["images"] = {"volume": {"size": "1Gi", "storageClassName": absent_class}}

    with contextlib.contextmanager(make_space)(kube, "restricted") as tight, watch(tight, measured) as full:

        def quota(pods: str) -> Object:
            metadata = {"name": "pods", "namespace": tight.name}
            return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": pods}}}

        began = time.monotonic()
        tenants: list[str | Object] = [{"name": name, "sandbox": spec} for name, spec in broken.items()]
        kube.apply(space.deployment(*tenants, cr="parts", engine=none), claim)
        lose(scene, node, sandbox["lost"])
        for trouble in troubles:
            follow_the_runbook(scene, trouble, scene.wait(trouble, began), node.name)
        # Late: the longer a StatefulSet's pods are refused, the longer it waits before it tries again.
        began = time.monotonic()
        kube.apply(quota("0"))
        kube.apply(tight.deployment("chem", cr="quota"))
        follow_the_runbook(full, refused, full.wait(refused, began))
        kube.kubectl("wait", "s1vl/quota", "-n", tight.name, "--for=condition=Ready=False", "--timeout=180s")

        mended = time.monotonic()
        kube.apply(quota("20"), volume(space, "parts-images", "claim-images", absent_class))
        kube.apply(space.deployment(*names, cr="parts", engine=none))
        for trouble in troubles:
            scene.wait_over(trouble, mended)
        full.wait_over(refused, mended)
        kube.kubectl("wait", "s1vl/quota", "-n", tight.name, "--for=condition=Ready", "--timeout=180s")


def test_a_rollout_on_full_nodes_stands_still_serving_and_goes_on_when_it_is_corrected(scene: Scene) -> None:
    space = scene.space
    add_resource(space.kube, FEW_GPUS, 2)

    def apply(gpus: int, **env: str) -> float:
        listed = [{"name": name, "value": value} for name, value in env.items()]
        manifest = space.deployment("chem", cr="gpu", engine={"replicas": 2, "gpus": gpus, "env": listed})
        manifest["spec"]["engine"]["gpuResource"] = FEW_GPUS
        at = time.monotonic()
        space.kube.apply(manifest)
        return at

    def last(env: str = "") -> Holds:
        """The pod that is replaced last, ready."""
        whose = ready(pods_of("gpu", "engine"))

        def holds(one: Object) -> bool:
            if not whose(one) or one["metadata"]["name"] != "gpu-engine-0":
                return False
            return env in {"", *(e["name"] for e in one["spec"]["containers"][0]["env"])}

        return holds

    short = unscheduled(pods_of("gpu", "engine"), FEW_GPUS)
    nowhere = Trouble("gpu", "EngineReady", Reason.UNSCHEDULABLE, short, last())
    began = apply(gpus=4)
    follow_the_runbook(scene, nowhere, scene.wait(nowhere, began))
    mended = apply(gpus=1)
    scene.wait_over(nowhere, mended)
    space.wait_condition("Ready", "True", name="gpu")

    blocked = Trouble("gpu", "Progressing", Reason.ROLLOUT_BLOCKED, short, last("NEW"), Reason.UNSCHEDULABLE)
    began = apply(gpus=4)
    follow_the_runbook(scene, blocked, scene.wait(blocked, began))
    for kind, reason in (("EngineReady", "EngineDegraded"), ("Ready", "AllReady"), ("Reconciling", "RolloutBlocked")):
        space.wait_condition(kind, "True", reason, name="gpu")
    # The correction is a rollout of its own: each pod needs the GPU of the one that it replaces.
    mended = apply(gpus=1, NEW="1")
    scene.wait_over(blocked, mended)
    space.wait_condition("EngineReady", "True", "EngineReady", name="gpu")
