"""Operators that are killed, that stand still, and that lose sight of the API server."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.cluster.controlplane import Running
from tests.api.operator.conftest import Space, wait_for
from tests.api.operator.proxy import Proxy
from tests.api.operator.running import Process, Start, quickstart, rest, starter

AWAY_SECONDS = 25
"""Longer than anything that the operator waits for: its Lease's deadline of 7 s, and kopf's retries of 20 s in all."""


@pytest.fixture
def start(space: Space, kubeconfig: str, tmp_path: Path) -> Iterator[Start]:
    with starter(space, kubeconfig, tmp_path) as start:
        yield start


@pytest.fixture
def proxy(apiserver: Running) -> Iterator[Proxy]:
    """Stands before the API server; only what is told to goes through it."""
    proxy = Proxy(int(apiserver.server.rpartition(":")[2]))
    proxy.start()
    yield proxy
    proxy.close()


def leading(process: Process) -> None:
    wait_for(f"{process.log.stem} to lead", process.leads, timeout=120)
    wait_for(f"{process.log.stem} to watch", lambda: process.http("/readyz")[0] == 200, timeout=120)


def test_a_leader_that_is_killed_is_followed(space: Space, start: Start, measured: Callable[[str], None]) -> None:
    first = start("operator-0")
    leading(first)
    second = start("operator-1")
    wait_for("the second to stand by", lambda: any("Standing by" in line["message"] for line in second.said()))
    quickstart(space)
    rest(first)
    first.popen.kill()
    killed = time.monotonic()
    space.api.request("DELETE", space.path("Service", "demo-engine"))
    wait_for("the second to lead", second.leads, timeout=120)
    leads = time.monotonic() - killed
    wait_for("the service to come back", lambda: "demo-engine" in space.names("Service"), timeout=120)
    works = time.monotonic() - killed
    measured(f"operator.takeover: leader killed; another leads after {leads:.1f} s, works after {works:.1f} s")
    assert second.stop() == 0


def test_a_leader_that_stood_still_writes_nothing_more(space: Space, start: Start) -> None:
    first = start("operator-0")
    leading(first)
    quickstart(space)
    written = rest(first)
    second = start("operator-1")
    first.popen.send_signal(signal.SIGSTOP)
    leading(second)
    # What the one that stands still would mend at once, and does not know of yet.
    space.api.request("DELETE", space.path("Service", "demo-engine"))
    wait_for("the service to come back", lambda: "demo-engine" in space.names("Service"), timeout=120)
    first.popen.send_signal(signal.SIGCONT)
    wait_for("the first to notice", lambda: any("Standing by again" in line["message"] for line in first.said()))
    assert first.writes() == written
    assert not first.leads()
    assert first.deployments() == 0
    assert second.leads()
    assert first.stop() == second.stop() == 0


def refused(proxy: Proxy) -> Callable[[], None]:
    proxy.refuse()
    return proxy.start


def silent(proxy: Proxy) -> Callable[[], None]:
    proxy.silence()
    return proxy.speak


@pytest.mark.parametrize("away", [refused, silent])
def test_an_api_server_that_is_away_ends_nothing_and_nothing_is_lost(
    space: Space, start: Start, proxy: Proxy, away: Callable[[Proxy], Callable[[], None]]
) -> None:
    process = start("operator-0", through=proxy.port)
    leading(process)
    quickstart(space)
    space.apply_cr("chem", name="left")
    wait_for("the other one's status", lambda: space.condition("Progressing", "left"))
    written = rest(process)
    assert process.deployments() == 2

    began = time.monotonic()
    back = away(proxy)
    space.api.request("DELETE", space.path("StatefulSet", "demo-engine"))
    space.api.request("DELETE", space.path("S1VLDeployment", "left"))
    space.apply_cr("chem", "bio")
    space.apply_cr("chem", name="new")
    wait_for("it to know that it no longer leads", lambda: not process.leads())
    wait_for("it to say that it cannot work", lambda: process.http("/readyz")[0] == 500)
    while time.monotonic() - began < AWAY_SECONDS:
        assert process.http("/healthz") == (200, "ok\n"), "no restart would mend it"
        time.sleep(1)
    assert process.writes() == written
    assert "demo-engine" not in space.names("StatefulSet")

    back()
    leading(process)
    wait_for("the engine to come back", lambda: "demo-engine" in space.names("StatefulSet"), timeout=120)
    wait_for("the new tenant's key", lambda: "demo-tenant-bio" in space.secrets(), timeout=120)
    wait_for("the new one's engine", lambda: "new-engine" in space.names("StatefulSet"), timeout=120)
    wait_for("the right number of deployments", lambda: process.deployments() == 2, timeout=120)
    assert process.popen.poll() is None
    assert process.stop() == 0


def test_what_happens_while_no_watch_stands_is_noticed(space: Space, start: Start, proxy: Proxy) -> None:
    process = start("operator-0", through=proxy.port)
    leading(process)
    quickstart(space)
    space.apply_cr("chem", name="left")
    wait_for("the other one's status", lambda: space.condition("Progressing", "left"))
    rest(process)
    proxy.refuse()
    space.api.request("DELETE", space.path("Service", "demo-engine"))
    space.api.request("DELETE", space.path("S1VLDeployment", "left"))
    space.apply_cr("chem", name="new")
    proxy.start()
    wait_for("the service to come back", lambda: "demo-engine" in space.names("Service"), timeout=120)
    wait_for("the new one's engine", lambda: "new-engine" in space.names("StatefulSet"), timeout=120)
    wait_for("the right number of deployments", lambda: process.deployments() == 2, timeout=120)
    proxy.cut()
    space.api.request("DELETE", space.path("Service", "demo-engine"))
    wait_for("the service to come back again", lambda: "demo-engine" in space.names("Service"), timeout=120)
    assert process.stop() == 0
