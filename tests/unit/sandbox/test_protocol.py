"""Messages of server, kernel host and its children."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_sandbox.protocol import Lines, ProtocolError, encode


@given(st.lists(st.text(), max_size=5), st.integers(1, 7))
def test_messages_survive_any_cutting(texts: list[str], size: int) -> None:
    data = b"".join(encode("say", text=text) for text in texts)
    lines = Lines()
    heard = [message for start in range(0, len(data), size) for message in lines.feed(data[start : start + size])]
    assert heard == [{"type": "say", "text": text} for text in texts]


def test_paths_become_text() -> None:
    assert Lines().feed(encode("start", read=(Path("/a"),))) == [{"type": "start", "read": ["/a"]}]
    with pytest.raises(TypeError, match="object"):
        encode("start", read=object())


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b'{"type": 1}\n', b"\xff\n", b"x" * (4 * 1024 * 1024 + 1)])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Lines().feed(line)
