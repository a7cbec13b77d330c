"""Asks orchestrator pods what they know of their tenants, on the management port that only the operator reaches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import httpx

from s1vl_operator.api.rules import MANAGEMENT_PORT
from s1vl_operator.observe import Report, parse_report
from s1vl_operator.observe.pods import pod_url

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 3.0
LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes; 200 tenants take about 100 KiB."""


class Probe(Protocol):
    """Asks orchestrator pods, given as manifests; never raises for a pod that does not answer."""

    async def __call__(self, pods: Sequence[dict[str, Any]]) -> list[Report]:
        """One report of each."""

    async def objection(self, pods: Sequence[dict[str, Any]], protocol: str) -> str | None:
        """What the first that answers has against a protocol's text; "" when it has nothing, None when none answers."""


class OrchestratorProbe:
    """A Probe by HTTP to the pods' own addresses. Close it after use."""

    def __init__(self, port: int = MANAGEMENT_PORT) -> None:
        self._port = port
        # No proxy of the environment stands between us and a pod.
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __call__(self, pods: Sequence[dict[str, Any]]) -> list[Report]:
        """Ask all the pods at once."""
        return list(await asyncio.gather(*(self._ask(pod) for pod in pods)))

    async def objection(self, pods: Sequence[dict[str, Any]], protocol: str) -> str | None:
        """Ask one pod after the other until one answers."""
        for pod in pods:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    answer = await self._http.post(f"{pod_url(pod, self._port)}/internal/protocol", content=protocol)
                if answer.status_code == httpx.codes.OK and len(answer.content) <= LARGEST_ANSWER:
                    return str(answer.json()["message"])
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return ""  # An orchestrator from before there was this question.
                logger.warning("POST %s: HTTP %d", answer.url, answer.status_code)
            except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s does not say whether a protocol can be used: %r", pod["metadata"]["name"], error)
        return None

    async def _ask(self, pod: dict[str, Any]) -> Report:
        name = pod["metadata"]["name"]
        base = pod_url(pod, self._port)
        if not base:
            return Report(pod=name, error="the pod has no address yet")
        url = f"{base}/internal/tenants"
        try:
            # httpx limits each read, not the whole: a pod that drips must not hold a worker.
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._http.get(url)
            if answer.status_code != httpx.codes.OK:
                return Report(pod=name, error=f"GET {url}: HTTP {answer.status_code}")
            if len(answer.content) > LARGEST_ANSWER:
                return Report(pod=name, error=f"GET {url}: {len(answer.content)} bytes are more than {LARGEST_ANSWER}")
            return parse_report(name, answer.json())
        except TimeoutError:
            return Report(pod=name, error=f"GET {url}: no answer within {TIMEOUT_SECONDS:.0f} s")
        except (httpx.HTTPError, ValueError) as error:
            return Report(pod=name, error=f"GET {url}: {error or type(error).__name__}")
