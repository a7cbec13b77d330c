"""Metrics, JSON logs and the ids that tie them together."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import sys
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pythonjsonlogger.json import JsonFormatter

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
job_id: contextvars.ContextVar[str] = contextvars.ContextVar("job_id", default="")
tenant_name: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")

_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """All Prometheus series of the orchestrator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter("s1vl_jobs", "Jobs by how they ended.", ["tenant", "stop_reason"], registry=self.registry)
        self.plain_requests = Counter(
            "s1vl_plain_requests", "Requests passed on to the engine.", ["tenant"], registry=self.registry
        )
        self.jobs_running = Gauge("s1vl_jobs_running", "Jobs that run now.", ["tenant"], registry=self.registry)
        self.jobs_queued = Gauge("s1vl_jobs_queued", "Requests that wait.", ["tenant"], registry=self.registry)
        self.job_seconds = Histogram(
            "s1vl_job_seconds",
            "Duration of a job, its time in the queue included.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.job_turns = Histogram(
            "s1vl_job_turns", "Turns of a job.", buckets=(1, 2, 3, 4, 5, 6, 8, 10, 16), registry=self.registry
        )
        self.errors = Counter("s1vl_request_errors", "Error answers by code.", ["code"], registry=self.registry)
        self.engine_seconds = Histogram(
            "s1vl_engine_turn_seconds", "One turn of the model.", buckets=_SECONDS, registry=self.registry
        )
        self.engine_first_token = Histogram(
            "s1vl_engine_first_token_seconds", "Until a turn's first token.", buckets=_SECONDS, registry=self.registry
        )
        self.engine_retries = Counter("s1vl_engine_retries", "Repeated requests.", ["cause"], registry=self.registry)
        # A label for each pod: they are few, and the series of one that is gone is removed.
        self.engine_requests = Gauge(
            "s1vl_engine_requests", "Requests in flight at an engine pod.", ["pod"], registry=self.registry
        )
        self.engine_moves = Counter(
            "s1vl_engine_moves", "Jobs and requests that went on at another engine pod.", registry=self.registry
        )
        self.engine_tokens = Counter("s1vl_engine_tokens", "Tokens.", ["kind"], registry=self.registry)
        self.sandbox_seconds = Histogram(
            "s1vl_sandbox_cell_seconds", "One cell.", ["status"], buckets=_SECONDS, registry=self.registry
        )
        self.sandbox_sessions = Gauge("s1vl_sandbox_sessions", "Sessions that are open now.", registry=self.registry)
        self.sandbox_sessions_lost = Counter(
            "s1vl_sandbox_sessions_lost", "Sessions that vanished in the middle of a job.", registry=self.registry
        )
        self.sandbox_pods = Gauge(
            "s1vl_sandbox_pods", "Pods of the tenant's sandbox that take sessions.", ["tenant"], registry=self.registry
        )
        self.requests_held = Gauge(
            "s1vl_requests_held",
            "Requests and jobs that wait for a pod of the tenant's sandbox.",
            ["tenant"],
            registry=self.registry,
        )
        self.sandbox_delete_failures = Counter(
            "s1vl_sandbox_session_delete_failures", "Deletions left to the sweeper.", registry=self.registry
        )
        self.canaries = Counter(
            "s1vl_path_canaries", "Path canaries by result.", ["tenant", "reason"], registry=self.registry
        )
        self.paths_consistent = Gauge(
            "s1vl_paths_consistent",
            "1 when the last canary of the tenant came back.",
            ["tenant"],
            registry=self.registry,
        )
        self.retention_removed_jobs = Counter(
            "s1vl_retention_removed_jobs", "Jobs' folders that were removed.", ["tenant"], registry=self.registry
        )
        self.retention_removed_bytes = Counter(
            "s1vl_retention_removed_bytes", "What they took on the volume.", ["tenant"], registry=self.registry
        )
        self.retention_kept_bytes = Gauge(
            "s1vl_retention_kept_bytes",
            "What all jobs' folders of a tenant took on the volume when they were last counted.",
            ["tenant"],
            registry=self.registry,
        )
        self.retention_failures = Counter(
            "s1vl_retention_failures",
            "Jobs' folders that could not be removed or counted.",
            ["tenant"],
            registry=self.registry,
        )
        self.lease_failures = Counter(
            "s1vl_lease_failures", "Renewals of tenants' Leases that failed.", registry=self.registry
        )
        self.config_errors = Counter("s1vl_config_errors", "Configurations refused.", registry=self.registry)
        tasks = Gauge(
            "s1vl_event_loop_tasks", "Tasks of the event loop; scraped from inside it.", registry=self.registry
        )
        tasks.set_function(lambda: len(asyncio.all_tasks()))


class _Context(logging.Filter):
    """Adds the ids to every record and takes out what looks like base64: pictures and keys do not belong in logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, variable in (("request_id", request_id), ("job_id", job_id), ("tenant", tenant_name)):
            if value := variable.get():
                setattr(record, name, value)
        message = record.getMessage()
        if _BASE64.search(message):
            record.msg, record.args = redact(message), ()
        return True


def redact(text: str) -> str:
    """Replace long runs of base64 by their length."""
    return _BASE64.sub(lambda match: f"<{len(match[0])} characters of base64>", text)


def log_config(level: str, log_format: str) -> dict[str, Any]:
    """A `logging` configuration: one JSON object (or a line of text) per record on stderr."""
    formats = {
        "json": {
            "()": JsonFormatter,
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
            "datefmt": "%Y-%m-%dT%H:%M:%S%z",
        },
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": _Context}},
        "formatters": {"chosen": formats[log_format]},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": sys.stderr,
                "formatter": "chosen",
                "filters": ["context"],
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            "uvicorn.access": {"level": "WARNING"},
        },
    }
