"""A sandbox of one's own for scenario tests: it really runs the cell, in this process."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hack.engine_sim.media import Item
from hack.engine_sim.policy.scenario import load_scenarios
from hack.engine_sim.policy.situation import read_situation
from hack.engine_sim.policy.speak import Speech, speak
from hack.engine_sim.prompt import IMAGE_MARK, Conversation, Turn
from hack.engine_sim.vision import look

PROMPT = "To run code write <code> and </code>. Finish with <answer> and </answer>."


def item(content: bytes) -> Item:
    return Item("key", look(content), 64)


@dataclass
class Dialogue:
    """A conversation with the policy about one picture, and a cell runner."""

    picture: Path
    output: Path
    conversation: Conversation = field(default_factory=Conversation)
    last: Speech | None = None

    def ask(self, question: str, *, prompt: str = PROMPT) -> str:
        self.conversation.turns.append(Turn("system", prompt, "", ()))
        self.conversation.turns.append(Turn("user", question + IMAGE_MARK, "", (item(self.picture.read_bytes()),)))
        return self.reply()

    def reply(self) -> str:
        self.last = speak(read_situation(self.conversation), load_scenarios())
        self.conversation.turns.append(Turn("assistant", "<think>\n" + self.last.text, "", ()))
        return self.last.text

    def tool(self, text: str, *images: bytes) -> str:
        self.conversation.turns.append(Turn("tool", text + IMAGE_MARK * len(images), "", tuple(map(item, images))))
        return self.reply()

    def code(self) -> str:
        assert self.last is not None
        return self.last.text.split("<code>\n```python\n")[1].split("\n```\n</code>")[0]

    def run(self) -> tuple[str, list[bytes]]:
        """Run the last code; return what it printed and the pictures that it saved."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(self.code(), {"image_path": str(self.picture), "output_dir": str(self.output)})
            except Exception:
                printed.write(traceback.format_exc())
        return printed.getvalue(), [path.read_bytes() for path in sorted(self.output.iterdir())]


@pytest.fixture
def dialogue(tmp_path: Path) -> Callable[[Path], Dialogue]:
    """Starts a conversation about the picture at a path."""
    output = tmp_path / "output"
    output.mkdir()
    return lambda picture: Dialogue(picture, output)
