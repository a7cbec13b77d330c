from __future__ import annotations

import re

import pytest

from s1vl_operator.api.reasons import Nature, Reason


@pytest.mark.parametrize("reason", Reason)
def test_reasons_are_words_by_the_api_conventions_and_documented(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{2,63}", reason)
    assert Reason(str(reason)) is reason
    assert reason.description.endswith(".")
    assert reason.remedy.endswith(".")


@pytest.mark.parametrize("reason", Reason)
def test_what_asks_for_a_hand_says_more_than_to_wait(reason: Reason) -> None:
    waits = reason.remedy.startswith(("Wait", "Nothing"))
    assert not (waits and reason.nature is Nature.TROUBLE)
