"""The demo's client: what it sends, what it says about failures, and what it prints."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hack.demo import ask

RESULT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Use [tools]."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "<think>\nI look.\n</think>\n\n<code>\n```python\nprint([1])\n```\n</code>"},
        {"role": "tool", "content": [{"type": "text", "text": "[1]"}]},
        {"role": "assistant", "content": "<think>\nSeen.\n</think>\n\n<answer>There [x].</answer>"},
    ],
    "images": [{"path": "/data/images/.s1vl/jobs/1/crop.png", "width": 512, "height": 256}],
    "stop_reason": "answer",
}


class _Service(HTTPServer):
    status = 200
    seen: dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    server: _Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen = {"path": self.path, "key": self.headers.get("authorization"), "body": body}
        answer = json.dumps(RESULT if self.server.status == 200 else {"error": {"message": "busy"}}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[_Service]:
    server = _Service(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "x.png"
    path.write_bytes(b"PNG")
    return path


def test_it_sends_what_the_card_sends(service: _Service, picture: Path) -> None:
    result = ask.ask(f"http://127.0.0.1:{service.server_port}/", picture, "/data/images/x.png", api_key="k")
    assert result == RESULT
    assert service.seen == {
        "path": "/process",
        "key": "Bearer k",
        "body": {
            "messages": [
                {"type": "text", "text": "Please carefully analyze this scientific image."},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H"}},
            ],
            "image_path_list": ["/data/images/x.png"],
        },
    }


def test_a_refusal_is_told_with_its_status(service: _Service, picture: Path) -> None:
    service.status = 429
    with pytest.raises(ask.AskError, match=r"answered 429: .*busy"):
        ask.ask(f"http://127.0.0.1:{service.server_port}", picture, "/data/images/x.png", "Where?")


def test_an_absent_service_is_told(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["http://127.0.0.1:1", str(picture), "/data/images/x.png"]) == 1
    assert "http://127.0.0.1:1/process: ConnectError" in capsys.readouterr().err


def test_the_trajectory_is_readable() -> None:
    out = io.StringIO()
    ask.show(RESULT, Console(file=out, width=100))
    text = out.getvalue()
    for words in (
        "Use [tools].", "turn 1: the model", "I look.", "print([1])", "the sandbox", "[1]", "turn 2: the model",
        "picture made on the way: /data/images/.s1vl/jobs/1/crop.png (512x256 px)", "answer", "There [x].",
    ):  # fmt: skip
        assert words in text
    assert "<code>" not in text


def test_a_trajectory_without_an_answer_is_an_error() -> None:
    with pytest.raises(ask.AskError, match="no message of the assistant"):
        ask.final_answer({"messages": [{"role": "user", "content": "x"}]})
