from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.desired.conftest import pod, state

COMPONENT = "app.kubernetes.io/component"


def policy(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = state(spec)[f"NetworkPolicy/demo-{name}"]["spec"]
    return found


def peers(rule: dict[str, Any], side: str) -> list[str]:
    """Peers of a rule in short: a component of ours, "operator", a CIDR, or "pods"."""

    def short(peer: dict[str, Any]) -> str:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        if "namespaceSelector" in peer:
            return "operator" if labels == {"app.kubernetes.io/name": "s1vl-operator"} else "pods"
        if "ipBlock" in peer:
            return str(peer["ipBlock"]["cidr"])
        assert labels["s1vl.io/deployment"] == "demo", "another deployment's pods must not match"
        return str(labels[COMPONENT])

    return [short(peer) for peer in rule.get(side, [{}])] if side in rule else ["everyone"]


def opened(rules: list[dict[str, Any]], side: str) -> dict[tuple[str, int], None]:
    return {(peer, port["port"]): None for rule in rules for peer in peers(rule, side) for port in rule["ports"]}


DNS = [("pods", 53), ("169.254.20.10/32", 53)]


@pytest.mark.parametrize(
    ("name", "spec", "ingress", "egress"),
    [
        ("default-deny", {}, [], []),
        ("sandbox", {}, [("orchestrator", 8080)], []),
        (
            "engine",
            {},
            [("orchestrator", 9200), ("operator", 9200)],
            [*DNS, ("0.0.0.0/0", 443), ("::/0", 443)],
        ),
        (
            "engine",
            {"model": {"source": {"existingClaim": {"name": "w"}}}},
            [("orchestrator", 9200), ("operator", 9200)],
            [],
        ),
        (
            "orchestrator",
            {"engine": {"port": 9300}, "sandbox": {"port": 8181}},
            [("everyone", 10044), ("operator", 10045)],
            [("engine", 9300), ("sandbox", 8181), *DNS, ("10.244.0.1/32", 6443)],
        ),
    ],
)
def test_exactly_the_needed_openings(
    name: str, spec: dict[str, Any], ingress: list[tuple[str, int]], egress: list[tuple[str, int]]
) -> None:
    found = policy(name, spec)
    assert found["policyTypes"] == ["Ingress", "Egress"]
    assert list(opened(found.get("ingress", []), "from")) == ingress
    assert list(opened(found.get("egress", []), "to")) == egress


def test_every_pod_is_closed_by_default() -> None:
    selector = policy("default-deny")["podSelector"]["matchLabels"].items()
    templates = [m["spec"]["template"] for m in state().values() if "template" in m.get("spec", {})]
    assert len(templates) == 3
    assert all(selector <= template["metadata"]["labels"].items() for template in templates)


def test_a_nodes_own_credentials_are_out_of_reach() -> None:
    world = policy("engine")["egress"][1]["to"]
    assert [peer["ipBlock"]["except"] for peer in world] == [["169.254.169.254/32"], ["fd00:ec2::254/128"]]


def test_the_operator_is_known_by_namespace_and_name() -> None:
    (peer,) = policy("orchestrator")["ingress"][1]["from"]
    assert peer == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "s1vl-system"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "s1vl-operator"}},
    }


def test_clients_can_be_restricted() -> None:
    allowed = [{"namespaceSelector": {"matchLabels": {"team": "chem"}}}]
    assert policy("orchestrator", {"networkPolicy": {"ingressFrom": allowed}})["ingress"][0]["from"] == allowed


def test_switched_off() -> None:
    made = state({"networkPolicy": {"enabled": False}})
    assert not [name for name in made if name.startswith("NetworkPolicy/")]


def test_ports_are_those_of_the_containers() -> None:
    spec = {"engine": {"port": 9300}, "sandbox": {"port": 8181}, "orchestrator": {"port": 8000}}
    made = state(spec)
    for workload, name in (
        ("StatefulSet/demo-engine", "engine"),
        ("Deployment/demo-sandbox-chem", "sandbox"),
        ("Deployment/demo-orchestrator", "orchestrator"),
    ):
        listening = {port["containerPort"] for port in pod(made[workload])["containers"][0]["ports"]}
        assert {port for _, port in opened(policy(name, spec)["ingress"], "from")} == listening
