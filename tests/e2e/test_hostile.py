"""The hostile cells in a sandbox pod as the operator makes it, under Pod Security `restricted`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Space
from tests.hostile.case import Case, Session
from tests.hostile.corpus import TRIALS, trial_id
from tests.hostile.judge import Judge

TENANT = "chem"
IMAGES = f"/srv/s1vl/images/{TENANT}"
"""The tenant's folder where the orchestrator sees it."""


class SandboxPod:
    """The pod of one tenant, with a forwarded port."""

    def __init__(self, space: Space, url: str) -> None:
        self.url = url
        self.key = space.secret(f"demo-sandbox-{TENANT}", "apiKey")
        self._space = space
        self._pod = space.pods(f"s1vl.io/tenant={TENANT}")[0]
        containers = {container["name"]: container for container in self._pod["spec"]["containers"]}
        environment = {entry["name"]: entry.get("value", "") for entry in containers["kernels"]["env"]}
        self.workspace = environment["S1VL_SANDBOX_WORKSPACE"]
        self.state_dir = environment["S1VL_SANDBOX_STATE_DIR"]
        self.port = containers["sandbox"]["ports"][0]["containerPort"]
        # The first process of the kernels' container; the server has no number there.
        self.pids = [1]

    def make_job(self, name: str) -> str:
        job = f".s1vl/jobs/{name}"
        self._orchestrator(
            f"umask 0007 && mkdir -p '{IMAGES}/{job}' && chmod 2770 '{IMAGES}/{job}' "
            f"&& echo 'a job'\"'\"'s own input' > '{IMAGES}/{job}/input.txt'"
        )
        return f"{self.workspace}/{job}"

    def write_input(self, content: str) -> str:
        self._orchestrator(f"printf %s '{content}' > '{IMAGES}/picture.png'")
        return f"{self.workspace}/picture.png"

    def exists(self, path: str) -> bool:
        return self._kernels("import os, sys; print(os.path.lexists(sys.argv[1]))", path) == "True"

    def group_lives(self, leader: int) -> bool:
        code = (
            "import os, sys\ntry:\n    os.killpg(int(sys.argv[1]), 0)\n"
            "except ProcessLookupError:\n    print('gone')\nelse:\n    print('lives')"
        )
        return self._kernels(code, str(leader)) == "lives"

    def restarts(self) -> dict[str, int]:
        """How often each container was started again."""
        pod = self._space.kube.get("pod", self._pod["metadata"]["name"], self._space.name)
        return {status["name"]: status["restartCount"] for status in pod["status"]["containerStatuses"]}

    def _orchestrator(self, script: str) -> str:
        return self._space.kube.exec("deploy/demo-orchestrator", self._space.name, "sh", "-c", script)

    def _kernels(self, code: str, argument: str) -> str:
        name = self._pod["metadata"]["name"]
        text = self._space.kube.exec(name, self._space.name, "python3", "-c", code, argument, container="kernels")
        return text.strip()


@pytest.fixture(scope="module")
def place(shared_space: Space) -> Iterator[SandboxPod]:
    shared_space.apply_ready(shared_space.deployment(TENANT))
    pod = shared_space.pods(f"s1vl.io/tenant={TENANT}")[0]["metadata"]["name"]
    with shared_space.kube.port_forward(f"pod/{pod}", shared_space.name, 8080) as url:
        place = SandboxPod(shared_space, url)
        before = place.restarts()
        yield place
        assert place.restarts() == before, "a hostile cell ended a container"


@pytest.fixture(scope="module")
def judge(place: SandboxPod) -> Iterator[Judge]:
    with contextlib.closing(Judge(place)) as judge:
        yield judge


@pytest.mark.parametrize("trial", TRIALS, ids=trial_id)
def test_it_is_contained(judge: Judge, trial: tuple[Case, Session]) -> None:
    judge.try_case(*trial)


def test_server_and_kernels_are_apart(judge: Judge) -> None:
    assert judge.held() >= {"files", "tcp", "signals", "syscalls", "separate_server"}
