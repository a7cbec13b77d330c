"""The pure parts of the local cluster."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import addons, build, components, network, paths, processes, provisioner
from hack.cluster.components import ControlPlane, Node
from hack.cluster.oci import write_scratch_image
from hack.cluster.processes import Processes, Program
from hack.ui import Failure

STATE = Path("/checkout/.s1vl/cluster")
RUN = Path("/run/s1vl-cluster")


def node() -> Node:
    return Node(ControlPlane(STATE, lambda name: Path("/bin-of-cache") / name, "0.0.0.0", 6443, 2379, 2380), RUN)


def test_removal_deletes_jumps_then_empties_then_deletes() -> None:
    listing = """-P FORWARD ACCEPT
-N DOCKER
-N KUBE-FORWARD
-N KUBE-SVC-1
-N S1VL-FORWARD
-A FORWARD -j S1VL-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -j DOCKER
-A KUBE-FORWARD -m comment --comment "to KUBE-SVC-1" -j KUBE-SVC-1
-A DOCKER -j RETURN""".splitlines()
    assert network.removal(listing) == [
        "-D FORWARD -j S1VL-FORWARD",
        '-D FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        "-F KUBE-FORWARD",
        "-F KUBE-SVC-1",
        "-F S1VL-FORWARD",
        "-X KUBE-FORWARD",
        "-X KUBE-SVC-1",
        "-X S1VL-FORWARD",
    ]


def test_removal_leaves_others_alone() -> None:
    assert network.removal(["-P FORWARD DROP", "-N DOCKER", "-A FORWARD -j DOCKER"]) == []


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["/cache/kubelet", f"--config={STATE}/conf/kubelet.json"], True),
        (["/usr/bin/containerd-shim-runc-v2", "-address", f"{RUN}/containerd.sock"], True),
        ([sys.executable, "-m", components.PROVISIONER_MODULE, f"--folder={STATE}/volumes"], True),
        (["tail", "-f", f"{STATE}/log/kubelet.log"], False),
        (["kubectl", f"--kubeconfig={STATE}/kubeconfig", "get", "pods"], False),
        (["python", "-m", "http.server", f"{STATE}/"], False),
        (["/cache/kubelet", "--config=/other/.s1vl/cluster/conf/kubelet.json"], False),
        (["/cache/kubelet", f"--config={STATE}-of-somebody-else/kubelet.json"], False),
        (["containerd"], False),
        ([""], False),
        ([], False),
    ],
)
def test_whose_process(command: list[str], ours: bool) -> None:
    programs = {"kubelet", "containerd", "containerd-shim-runc-v2", components.PROVISIONER_MODULE}
    assert processes.is_ours(command, programs, {STATE, RUN}) is ours


def test_a_reused_pid_is_not_ours(tmp_path: Path) -> None:
    recorded = Processes(tmp_path)
    (tmp_path / "pids").mkdir()
    started = processes.start_time(os.getpid())
    assert started is not None
    record = tmp_path / "pids" / "etcd.json"
    record.write_text(json.dumps({"pid": os.getpid(), "started": started}))
    assert recorded.recorded() == {"etcd": os.getpid()}
    record.write_text(json.dumps({"pid": os.getpid(), "started": started - 1}))
    assert recorded.recorded() == {}
    record.write_text("{half written")
    assert recorded.recorded() == {}


def test_start_wait_and_stop(tmp_path: Path) -> None:
    recorded = Processes(tmp_path)
    recorded.start(Program("sleeper", ("sleep", "600")), ends_with_us=True)
    pid = recorded.pid("sleeper")
    assert pid is not None
    processes.stop([pid], grace=5)
    assert recorded.pid("sleeper") is None


def test_a_program_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    recorded = Processes(tmp_path)
    recorded.start(Program("liar", ("sh", "-c", "echo no such flag >&2; exit 3")))
    with pytest.raises(Failure, match=r"(?s)liar ended.*liar\.log.*no such flag"):
        recorded.wait("it to serve", "liar", lambda: False, 30)


def test_scratch_image_is_a_docker_archive_and_always_the_same(tmp_path: Path) -> None:
    binary = tmp_path / "pause"
    binary.write_bytes(b"\x7fELF")
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    write_scratch_image(binary, "localhost/pause:1", first)
    os.utime(binary, (0, 0))
    write_scratch_image(binary, "localhost/pause:1", second)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        layer = read(manifest["Layers"][0])
    assert manifest["RepoTags"] == ["localhost/pause:1"]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert [(member.name, member.mode) for member in files] == [("pause", 0o755)]


def claim(**spec: Any) -> dict[str, Any]:
    requests = {"requests": {"storage": "1Gi"}}
    return {
        "metadata": {"namespace": "default", "name": "images", "uid": "u-1"},
        "spec": {"storageClassName": "standard", "accessModes": ["ReadWriteMany"], "resources": requests, **spec},
        "status": {"phase": "Pending"},
    }


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, True),
        ({"storageClassName": "fast"}, False),
        ({"storageClassName": ""}, False),
        ({"volumeName": "pv-1"}, False),
        ({"selector": {"matchLabels": {"a": "b"}}}, False),
    ],
)
def test_which_claims_get_a_volume(spec: dict[str, Any], wanted: bool) -> None:
    assert provisioner.wants_volume(claim(**spec)) is wanted


def test_a_volume_is_bound_to_its_claim() -> None:
    volume = provisioner.volume_for(claim(), Path("/volumes"))
    assert volume["spec"]["hostPath"]["path"] == "/volumes/pvc-u-1"
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volume["spec"]["claimRef"]["uid"] == "u-1"


def test_the_class_names_the_provisioner() -> None:
    text = (addons.MANIFESTS / "storage.yaml").read_text()
    assert f"provisioner: {provisioner.PROVISIONER}\n" in text
    assert f"name: {provisioner.STORAGE_CLASS}\n" in text


def test_manifests_agree_with_the_constants() -> None:
    text = addons.manifests([])
    for image in set(addons.IMAGES.values()) - {addons.IMAGES["pause"]}:
        assert f"image: {image}\n" in text
    assert f"clusterIP: {network.DNS_IP}\n" in text
    assert f"--nfqueue-id={network.QUEUE}," in text
    assert f"--hostname-override={components.NODE_NAME}," in text


@pytest.mark.parametrize(("resolvers", "forwards"), [([], False), (["10.0.0.2", "10.0.0.3"], True)])
def test_names_outside_go_to_the_machines_resolvers(resolvers: list[str], forwards: bool) -> None:
    assert ("forward . 10.0.0.2 10.0.0.3" in addons.corefile(resolvers)) is forwards


def test_every_process_works_in_a_folder_of_ours_or_none_could_be_found_after_a_kill() -> None:
    programs = {*build.SOURCES, "containerd", components.PROVISIONER_MODULE}
    for program in node().programs():
        assert processes.is_ours(list(program.command), programs, {STATE, RUN}), program


def test_sockets_have_short_paths_however_deep_the_checkout_lies() -> None:
    deep = Path("/" + "/".join(["deep"] * 40))
    assert len(str(deep)) > 107
    plane = ControlPlane(deep, Path, "0.0.0.0", 6443, 2379, 2380)
    assert node().kubelet_root == Node(plane, RUN).kubelet_root
    assert len(str(Node(plane, RUN).kubelet_root / "device-plugins/kubelet.sock")) <= 107


def test_the_key_of_a_program_follows_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_go", lambda: (Path("go"), "go1.26.6"))
    monkeypatch.setattr(paths, "GOMOD", tmp_path)
    (tmp_path / "pause").mkdir()
    source = tmp_path / "pause" / "main.go"
    source.write_text("package main")
    before = build.key("pause")
    assert build.key("pause") == before
    source.write_text("package main // changed")
    changed = build.key("pause")
    assert changed != before
    monkeypatch.setattr(build, "find_go", lambda: (Path("go"), "go1.27.0"))
    assert build.key("pause") not in (before, changed)


def test_bootstrap_refuses_what_it_does_not_know() -> None:
    script = Path(__file__).parents[3] / "hack" / "bootstrap.sh"
    done = subprocess.run([script, "--nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
