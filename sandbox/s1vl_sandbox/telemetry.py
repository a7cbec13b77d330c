"""Metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The server's metrics in a registry of their own, so that two servers in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"s1vl_sandbox_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"s1vl_sandbox_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"s1vl_sandbox_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

        self.sessions = gauge("sessions", "Open sessions.")
        self.warm = gauge("warm_kernels", "Processes that only wait for a session.")
        self.ready = gauge("ready", "1 if the last readiness check ran its code.")
        self.acquire = histogram("acquire_seconds", "Time to get a kernel for a session.", "source")
        self.cells = counter("cells", "Cells run, by how they ended.", "status")
        self.cell_seconds = histogram("cell_seconds", "Wall-clock time of cells.")
        self.starts = counter("kernel_starts", "Kernels started.", "result")
        self.kills = counter("kernel_ends", "Kernels ended, by cause.", "cause")
        self.truncations = counter("output_truncations", "Cells whose output was cut.")
        self.strays = counter("stray_processes", "Processes ended that had outlived the kernel host.")
        self.protection = gauge("protection", "1 if this protection of the kernels holds on this node.", "name")
