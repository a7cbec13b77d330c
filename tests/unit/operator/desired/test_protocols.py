"""Which protocol the configuration gets, and what becomes of a text of one's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from s1vl_operator.api.reasons import Reason
from s1vl_operator.desired import Protocol, orchestrator, protocols
from s1vl_orchestrator.config import parse_config
from s1vl_orchestrator.protocol.profile import load_profile
from tests.unit.operator.desired.conftest import deployment, state

EXAMPLE = Path(__file__).parents[4] / "examples/protocol.yaml"
BUILT_IN = sorted(file.name[:-5] for file in files("s1vl_orchestrator.protocol").glob("*.yaml"))
OWN = {"orchestrator": {"protocolRef": {"name": "mine", "key": "p"}}}


def config_map(**data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "mine"}, "data": data}


BEFORE = "name: before\ncode_open: x\n"
RUNNING = orchestrator.config_text(deployment(OWN), BEFORE)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_protocol_of_the_orchestrator_can_be_chosen(name: str) -> None:
    chosen = protocols.choose(deployment({"orchestrator": {"protocol": name}}), None, RUNNING)
    assert chosen == Protocol(name)
    parse_config(orchestrator.config_text(deployment(), name))


def test_the_default() -> None:
    assert protocols.choose(deployment(), None, RUNNING) == Protocol("s1vl")


@pytest.mark.parametrize(
    ("found", "config", "value", "reason", "said"),
    [
        (config_map(p="name: mine\n"), RUNNING, "name: mine\n", None, ""),
        (
            config_map(p=" \n"),
            "protocol: a",
            "a",
            Reason.PROTOCOL_INVALID,
            "p of the ConfigMap mine is empty; the last",
        ),
        (None, RUNNING, BEFORE, Reason.PROTOCOL_NOT_FOUND, "there is no ConfigMap mine"),
        (None, "", "", Reason.PROTOCOL_NOT_FOUND, "nobody is served until then"),
        (None, "{", "", Reason.PROTOCOL_NOT_FOUND, "nobody is served until then"),
        (None, "[1]", "", Reason.PROTOCOL_NOT_FOUND, "nobody is served until then"),
        (None, "protocol: thyme", "thyme", Reason.PROTOCOL_NOT_FOUND, "the last protocol stays in the configuration"),
        (config_map(q="x", r="y"), "protocol: s1vl", "s1vl", Reason.PROTOCOL_NOT_FOUND, "has no key p; it has q, r"),
        ({"binaryData": {"p": "eA=="}}, "protocol: s1vl", "s1vl", Reason.PROTOCOL_NOT_FOUND, "no key p; it has none"),
        (config_map(p="ä" * 32768), "", "ä" * 32768, None, ""),
        (config_map(p="ä" * 32769), "protocol: a", "a", Reason.PROTOCOL_INVALID, "has 65538 bytes, more than 65536"),
    ],
)
def test_a_protocol_of_ones_own(
    found: dict[str, Any] | None, config: str, value: str, reason: Reason | None, said: str
) -> None:
    chosen = protocols.choose(deployment(OWN), found, config)
    assert (chosen.value, chosen.reason) == (value, reason)
    assert said in chosen.message


def test_a_refusal_keeps_the_one_before() -> None:
    kept = protocols.refused(deployment(OWN), RUNNING, "code_open: Field required")
    assert (kept.value, kept.reason) == (BEFORE, Reason.PROTOCOL_INVALID)
    assert (
        kept.message
        == "p of the ConfigMap mine: code_open: Field required; the last protocol stays in the configuration"
    )


@pytest.mark.parametrize(
    ("config", "value", "reason"), [("", "new", None), (RUNNING, BEFORE, Reason.CONFIG_NOT_LOADED)]
)
def test_what_nobody_has_tried_replaces_nothing(config: str, value: str, reason: Reason | None) -> None:
    found = protocols.untried(Protocol("new"), config)
    assert (found.value, found.reason) == (value, reason)


@pytest.mark.parametrize(
    "text",
    [
        "name: a\ntexts: {system: b}\n",
        "no line break: at the end",
        "name: a\n\n\n",
        "\n  leading: space\n",
        'trailing: "x" \t\n图: ж\n',
        "carriage: return\r\nnext: \x85\u2028line\n",
        "tab:\t1\n",
        "#: only\n# comments\n",
        "",
        "thyme",
        "7",
        "null",
    ],
)
def test_a_text_reaches_the_orchestrator_unchanged(text: str) -> None:
    written = orchestrator.config_text(deployment(OWN), text)
    assert yaml.safe_load(written)["protocol"] == text


def test_people_can_read_it_in_the_configuration() -> None:
    written = orchestrator.config_text(deployment(OWN), "name: a\ntexts: {}\n")
    assert "\nprotocol: |\n  name: a\n  texts: {}\n" in written


def test_the_example_is_a_protocol() -> None:
    own, cr = yaml.safe_load_all(EXAMPLE.read_text())
    ref = cr["spec"]["orchestrator"]["protocolRef"]
    assert (ref["name"], own["metadata"]["labels"]) == (
        own["metadata"]["name"],
        {"s1vl.io/deployment": cr["metadata"]["name"]},
    )
    text = own["data"]["protocol.yaml"]
    assert load_profile(text).name == "microscopy"
    made = deployment(cr["spec"], cr["metadata"]["name"])
    chosen = protocols.choose(made, own, "")
    assert parse_config(orchestrator.config_text(made, chosen.value)).protocol == text


def test_without_any_protocol_there_is_no_configuration() -> None:
    assert "ConfigMap/demo-orchestrator" in state(OWN)
    assert "ConfigMap/demo-orchestrator" not in state(OWN, protocol="")
