"""Prometheus metrics and the form of the log."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pythonjsonlogger.json import JsonFormatter

Key = tuple[str, str]


class Metrics:
    """All metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._conditions: dict[Key, tuple[tuple[str, str], ...]] = {}
        self._reconciles = Counter(
            "s1vl_operator_reconcile", "Runs of the reconciliation, by result.", ["result"], registry=self.registry
        )
        self._seconds = Histogram(
            "s1vl_operator_reconcile_seconds",
            "Duration of a run.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self._requests = Counter(
            "s1vl_operator_api_requests",
            "Requests to the API server, by verb, resource and HTTP status (0: no answer); watches are not counted.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._leader = Gauge("s1vl_operator_leader", "1 in the replica that leads.", registry=self.registry)
        self._depth = Gauge("s1vl_operator_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self._busy = Gauge("s1vl_operator_workers_busy", "Workers that are at work.", registry=self.registry)
        self._oldest = Gauge("s1vl_operator_longest_run_seconds", "Age of the longest run.", registry=self.registry)
        self.registry.register(_Conditions(self._conditions))

    def watch_queue(self, depth: Callable[[], float], busy: Callable[[], float], oldest: Callable[[], float]) -> None:
        """Let the queue's gauges ask these functions."""
        self._depth.set_function(depth)
        self._busy.set_function(busy)
        self._oldest.set_function(oldest)

    def request(self, verb: str, resource: str, status: int) -> None:
        """Count one request to the API server."""
        self._requests.labels(verb, resource, str(status)).inc()

    @contextmanager
    def reconcile(self) -> Iterator[None]:
        """Time and count one run."""
        began = time.monotonic()
        result = "error"
        try:
            yield
            result = "ok"
        finally:
            self._seconds.observe(time.monotonic() - began)
            self._reconciles.labels(result).inc()

    def observe(self, key: Key, conditions: list[dict[str, Any]]) -> None:
        """Remember a custom resource's conditions."""
        self._conditions[key] = tuple((condition["type"], condition["status"]) for condition in conditions)

    def forget(self, key: Key) -> None:
        """Drop a custom resource that is gone."""
        self._conditions.pop(key, None)

    def known(self) -> list[Key]:
        """The custom resources whose conditions are remembered."""
        return list(self._conditions)

    def forget_all(self) -> None:
        """Drop every custom resource: another replica tells of them now."""
        self._conditions.clear()

    def watch_leader(self, leads: Callable[[], bool]) -> None:
        """Let the gauge of the replica that leads ask this function."""
        self._leader.set_function(lambda: float(leads()))

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Conditions(Collector):
    """Counts custom resources by condition when it is asked, so that nothing is left of those that went."""

    def __init__(self, conditions: dict[Key, tuple[tuple[str, str], ...]]) -> None:
        self._conditions = conditions

    def collect(self) -> Iterator[Metric]:
        tally = Tally(pair for pairs in self._conditions.values() for pair in pairs)
        family = GaugeMetricFamily(
            "s1vl_operator_deployments", "S1VLDeployments by condition and status.", labels=["condition", "status"]
        )
        for (kind, status), count in sorted(tally.items()):
            family.add_metric([kind, status], count)
        yield family


def configure_logging(form: Literal["json", "text"]) -> None:
    """Send the log to stderr, one line an entry."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter(fields, rename_fields=renamed))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Both would tell of every single event or request.
    for name in ("kopf", "httpx", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
