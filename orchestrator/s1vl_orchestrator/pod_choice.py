"""Which pod takes a job: of the engine, and of the tenant's sandbox. Pure.

A pod's load is what this process has placed there: jobs stay where they are placed, so it is known at every moment.
Instances need not know of each other as long as each spreads its own jobs and ties fall at random. Simulated with three
instances, four pods and 1.5 jobs/s of 3.5 turns of 8 s on average, the busiest pod had so much more running than the
mean: 15 % by own jobs, 17 % by own requests, 23 % by each pod's own number of 3 s ago (as `/metrics` has it; all
instances send what comes meanwhile to the pod that looked idle), 32 % at random; 13 % with every instance knowing all.
vLLM's `/load` would say nothing: it is 0 unless a flag has it counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How a pod stands when one is chosen.

    Attributes:
        address: Host and port.
        seats: What is placed there: jobs and plain requests, or sessions.
        failures: How often it failed the request that a pod is chosen for.
        avoided: It failed others a short while ago.
    """

    address: str
    seats: int = 0
    failures: int = 0
    avoided: bool = False


Draw = Callable[[Sequence[Standing]], Standing]


def choose(pods: Sequence[Standing], draw: Draw) -> Standing:
    """The pod that failed this request least, among those one that is not avoided, among those the least loaded.

    So a pod is avoided only while there is another. `draw` picks among equals.
    """

    def rank(pod: Standing) -> tuple[int, bool, int]:
        return pod.failures, pod.avoided, pod.seats

    best = min(map(rank, pods))
    return draw([pod for pod in pods if rank(pod) == best])
