"""Takes the local cluster's API server away for a while, and brings it back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hack.cluster import paths
from hack.cluster.down import owner
from hack.cluster.processes import Processes, stop
from hack.cluster.up import complete, machine_lock, this_node
from hack.ui import Failure

ENDED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""What ends: on real masters the latter two lose their leases with the first. A controller that went on would hold what
it saw last against the clock, and call the node lost before the kubelet can say a word."""
GRACE_SECONDS = 20.0


@contextlib.contextmanager
def without_api_server() -> Iterator[None]:
    """While the context lasts there is none; afterwards the cluster is whole again, whatever happened.

    What dies in the middle of it leaves a cluster that `up` makes whole.

    Raises:
        Failure: this checkout's cluster does not run, or it does not become whole; the latter names the log to read.
    """
    with machine_lock():
        if owner() != paths.STATE:
            raise Failure("this checkout's cluster does not run")
        recorded = Processes(paths.STATE).recorded()
        try:
            stop([recorded[name] for name in ENDED if name in recorded], GRACE_SECONDS)
            yield
        finally:
            complete(this_node())
