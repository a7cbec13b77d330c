"""The pod bridge, the rules that hand new connections to the NetworkPolicy agent, and their removal.

Pods hang on one bridge that also carries the node's address: no other device is needed. The agent's own nftables rules
need the kernel's nft `queue` expression, which not every kernel has, so iptables hands it the packets. Without an agent
the queue drops: a cluster that cannot enforce policies lets nothing through rather than everything.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from hack.cluster import paths
from hack.ui import Failure

BRIDGE = "s1vl-br0"
NODE_IP = "10.244.0.1"
POD_CIDR = "10.244.0.0/24"
CLUSTER_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
QUEUE = 100
POLICY_CHAIN = "S1VL-POLICY"
FORWARD_CHAIN = "S1VL-FORWARD"
OWNED_CHAINS = re.compile(r"^(KUBE|CNI|S1VL)-")
AGENT_NFT_TABLES = ("kube-network-policies", "kube-network-policies-dnscache")
CNI_RESULTS = Path("/var/lib/cni/results")
BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

# mangle comes before filter: no rule that accepts in filter, ours or kube-proxy's or Docker's, passes by a policy
RULES = (
    ("mangle", POLICY_CHAIN, f"-i {BRIDGE} -m conntrack --ctstate NEW -j NFQUEUE --queue-num {QUEUE}"),
    ("mangle", POLICY_CHAIN, f"! -i {BRIDGE} -o {BRIDGE} -m conntrack --ctstate NEW -j NFQUEUE --queue-num {QUEUE}"),
    # Docker sets the policy of FORWARD to DROP
    ("filter", FORWARD_CHAIN, f"-i {BRIDGE} -j ACCEPT"),
    ("filter", FORWARD_CHAIN, f"-o {BRIDGE} -j ACCEPT"),
)
INPUT_RULE = f"-i {BRIDGE} -m conntrack --ctstate NEW -j NFQUEUE --queue-num {QUEUE}"
JUMPS = (
    ("mangle", "FORWARD", f"-j {POLICY_CHAIN}"),
    ("filter", "FORWARD", f"-j {FORWARD_CHAIN}"),
    # an own rule, for -o does not exist in INPUT
    ("mangle", "INPUT", f"-j {POLICY_CHAIN}-IN"),
)


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def create() -> None:
    """Make the bridge, turn forwarding on, and put the rules in place. Changes nothing that is there already.

    Raises:
        Failure: a command failed, or the kernel cannot filter what crosses a bridge.
    """
    if not _succeeds("ip", "link", "show", BRIDGE):
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
    if NODE_IP not in _run("ip", "-4", "addr", "show", "dev", BRIDGE):
        _run("ip", "addr", "add", f"{NODE_IP}/{POD_CIDR.split('/')[1]}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if not BRIDGE_NETFILTER.exists() and not (_succeeds("modprobe", "br_netfilter") and BRIDGE_NETFILTER.exists()):
        raise Failure(
            f"{BRIDGE_NETFILTER} does not exist and `modprobe br_netfilter` did not help: "
            "NetworkPolicies between pods on this node could not be enforced"
        )
    BRIDGE_NETFILTER.write_text("1")
    for table, chain in {(table, chain) for table, chain, _ in RULES} | {("mangle", f"{POLICY_CHAIN}-IN")}:
        if not _succeeds("iptables", "-w", "-t", table, "-n", "-L", chain):
            _run("iptables", "-w", "-t", table, "-N", chain)
    for table, chain, rule in (*RULES, ("mangle", f"{POLICY_CHAIN}-IN", INPUT_RULE)):
        _ensure_rule(table, chain, rule, "-A")
    for table, chain, rule in JUMPS:
        _ensure_rule(table, chain, rule, "-I")


def _ensure_rule(table: str, chain: str, rule: str, how: str) -> None:
    if not _succeeds("iptables", "-w", "-t", table, "-C", chain, *rule.split()):
        _run("iptables", "-w", "-t", table, how, chain, *rule.split())


def removal(listing: Iterable[str]) -> list[str]:
    """What removes the cluster's chains from one table, for `iptables-restore --noflush`.

    Args:
        listing: the lines of `iptables -S` for that table.

    Returns:
        Deletions of the rules of other chains that lead into ours, then our chains, emptied before any is deleted
        (they lead into each other). Empty when nothing of ours is there.
    """
    lines = list(listing)
    chains = [name for line in lines if line.startswith("-N ") and OWNED_CHAINS.match(name := line.split()[1])]
    jumps = []
    for line in lines:
        found = re.match(r"-A (\S+) .*-[jg] (\S+)", line)
        if found and found.group(2) in chains and found.group(1) not in chains:
            jumps.append("-D" + line[2:])
    return [*jumps, *(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains)]


def remove() -> None:
    """Remove all rules and chains of kube-proxy, kubelet, CNI plugins and ours, the agent's tables, and the bridge."""
    for program in ("iptables", "ip6tables"):
        if shutil.which(program) is None:
            continue
        for table in ("mangle", "nat", "filter"):
            listing = subprocess.run(
                [program, "-w", "-t", table, "-S"], capture_output=True, text=True, check=False
            )  # fails where the kernel has no such table (IPv6 off): nothing of ours in it then
            script = removal(listing.stdout.splitlines())
            if script:
                _run(f"{program}-restore", "-w", "--noflush", stdin="\n".join([f"*{table}", *script, "COMMIT", ""]))
    if shutil.which("nft"):
        for table in AGENT_NFT_TABLES:
            subprocess.run(["nft", "delete", "table", "inet", table], capture_output=True, check=False)
    if _succeeds("ip", "link", "show", BRIDGE):
        _run("ip", "link", "delete", BRIDGE)
    for result in CNI_RESULTS.glob("*"):
        if f"{paths.RUN}/".encode() in result.read_bytes():  # names the pod's network namespace
            result.unlink()


def cni_config() -> dict[str, object]:
    """The CNI configuration list: one bridge, addresses from one range, host ports."""
    ipam = {"type": "host-local", "dataDir": str(paths.RUN / "cni"), "ranges": [[{"subnet": POD_CIDR}]]}
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": ipam,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "s1vl-cluster", "plugins": [bridge, ports]}


def upstream_resolvers() -> list[str]:
    """The name servers of this machine that pods can reach too: all but those on a loopback address."""
    for file in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if file.exists():
            servers = re.findall(r"^\s*nameserver\s+(\S+)", file.read_text(), re.MULTILINE)
            usable = [
                server for server in servers if not server.startswith("127.") and server != "::1" and "%" not in server
            ]
            if usable:
                return usable[:3]
    return []
