"""The runbook's pages, and that what they explain occurs."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from s1vl_operator.__main__ import main
from s1vl_operator.api.conditions import ConditionType
from s1vl_operator.api.reasons import Nature, Reason
from s1vl_operator.api.runbook import TENANTS, WORDS, commands, pages, told

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "docs/runbook"


def test_what_is_committed_is_what_the_reasons_say() -> None:
    committed = {page.name: page.read_text() for page in FOLDER.iterdir()}
    assert committed.keys() == pages().keys(), "run `make generate`"
    assert committed == pages(), "run `make generate`"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_page_with_all_that_it_promises(reason: Reason) -> None:
    page = pages()[f"{reason}.md"]
    assert reason.description in page
    assert reason.remedy in page
    assert told(reason)
    assert all(place in {*ConditionType, TENANTS} and f"`{place}`" in page for place in told(reason))
    assert f"[`{reason}`]({reason}.md)" in pages()["README.md"]


@pytest.mark.parametrize("reason", Reason)
def test_commands_are_whole_and_their_words_explained(reason: Reason) -> None:
    for command in commands(reason):
        program, *rest = shlex.split(command)
        assert program == "kubectl"
        words = [word for word in " ".join(rest).replace("=", " ").replace(",", " ").split() if word.isupper()]
        assert set(words) <= WORDS.keys()
        assert all(f"`{word}`: " in pages()[f"{reason}.md"] for word in words)


def test_pages_of_reasons_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "Gone.md").write_text("")
    assert main(["runbook", str(tmp_path)]) == 0
    assert {page.name for page in tmp_path.iterdir()} == pages().keys()


def modules(package: str, *without: str) -> Iterator[ast.AST]:
    for path in sorted((ROOT / package).rglob("*.py")):
        if not any(part in path.parts for part in without):
            yield from ast.walk(ast.parse(path.read_text()))


def test_every_reason_is_given_by_the_operator_or_by_the_orchestrator() -> None:
    operator = {
        node.attr
        for node in modules("operator/s1vl_operator", "api")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }
    orchestrator = {node.value for node in modules("orchestrator/s1vl_orchestrator") if isinstance(node, ast.Constant)}
    unused = [reason.name for reason in Reason if reason.name not in operator and reason.value not in orchestrator]
    assert unused == []


def test_the_index_begins_with_what_asks_for_a_hand() -> None:
    index = pages()["README.md"]
    places = [
        index.index(f"## {nature.value.capitalize()}") for nature in (Nature.TROUBLE, Nature.PASSING, Nature.FINE)
    ]
    assert places == sorted(places)
