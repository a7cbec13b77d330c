"""What runs and what works: one line per component."""

from __future__ import annotations

from rich.markup import escape

from hack.cluster import addons, paths
from hack.cluster.addons import Check
from hack.cluster.api import Api, ApiError
from hack.cluster.containerd import ctr
from hack.cluster.down import owner
from hack.cluster.processes import Processes
from hack.cluster.up import this_node
from hack.ui import Failure, console, say

COMPONENT_STATUSES = {
    "etcd": "/readyz/etcd",
    "kube-apiserver": "/readyz",
}


def _process_check(name: str, api: Api, nodes: dict[str, Check]) -> Check:
    """Whether a running process works, by the quickest question that it can answer."""
    if path := COMPONENT_STATUSES.get(name):
        try:
            said = api.request("GET", path).get("text", "")
        except ApiError as error:
            failed = [line for line in str(error).splitlines() if line.startswith("[-]")]
            return Check(False, ", ".join(failed) or str(error))
        return Check(said == "ok", said)
    if name == "containerd":
        try:
            return Check(True, f"{len(ctr('tasks', 'list', '-q').split())} containers, {paths.CONTAINERD_ADDRESS}")
        except Failure as error:
            return Check(False, str(error))
    if name == "kubelet":
        return nodes["node"]
    return Check(True, "running")


def show() -> bool:
    """Print the table; returns whether all is well."""
    recorded = owner()
    if recorded is None:
        say("No cluster is running on this machine.")
        return False
    if recorded != paths.STATE:
        say(f"The cluster on this machine belongs to another checkout: {recorded}")
        return False
    processes = Processes(paths.STATE)
    api = Api(paths.KUBECONFIG)
    checks = addons.checks(api)
    rows = []
    for program in this_node().programs():
        pid = processes.pid(program.name)
        check = Check(False, "not running") if pid is None else _process_check(program.name, api, checks)
        rows.append((program.name, str(pid or "-"), check, str(processes.log(program.name))))
    rows += [(name, "", check, "") for name, check in checks.items()]
    say(f"{'COMPONENT':<25}{'PID':<9}{'HEALTH':<60}LOG")
    for name, pid_text, check, log in rows:
        colour = "green" if check.ok else "red"
        console.print(f"{name:<25}{pid_text:<9}[{colour}]{escape(check.note):<60}[/{colour}]{log}".rstrip())
    say(f"KUBECONFIG={paths.KUBECONFIG}  programs: {paths.BIN}  pods' logs: {paths.STATE}/pod-logs")
    return all(check.ok for _, _, check, _ in rows)
