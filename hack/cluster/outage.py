"""Takes the local cluster's API server away for a while, and brings it back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hack.cluster import paths
from hack.cluster.api import Api
from hack.cluster.down import owner
from hack.cluster.processes import Processes, stop
from hack.cluster.up import machine_lock, this_node
from hack.ui import Failure

ENDED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""What ends: on real masters the latter two lose their leases with the first. A controller that went on would hold what
it saw last against the clock, and call the node lost before the kubelet can say a word."""


@contextlib.contextmanager
def without_api_server() -> Iterator[None]:
    """While the context lasts there is none; afterwards it is ready again, whatever happened.

    Who dies in the middle of it leaves a cluster that `up` makes whole. What looks at the API server by itself, the
    policy agent and metrics-server, may need a minute more.

    Raises:
        Failure: this checkout's cluster does not run, or the API server does not get ready; the latter names its log.
    """
    with machine_lock():
        if owner() != paths.STATE:
            raise Failure("this checkout's cluster does not run")
        processes, api = Processes(paths.STATE), Api(paths.KUBECONFIG)
        recorded = processes.recorded()
        try:
            # One that leaves in good order takes itself off the list first, and kube-proxy is late to put it back.
            stop([recorded[name] for name in ENDED if name in recorded], grace=0)
            yield
        finally:
            for program in this_node().programs():
                if processes.pid(program.name) is None:
                    processes.start(program)
                if program.name == ENDED[0]:
                    processes.wait(f"{ENDED[0]} to be ready", ENDED[0], api.ready, 120)
