"""`/v1/code`."""

from __future__ import annotations

import pytest

from .conftest import Client, only_ours

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_info(client: Client) -> None:
    languages = (await client.data("code.get_info")).languages
    (python,) = [language for language in languages if language.language == "python"]
    assert python.description
    assert (python.default_timeout, python.max_timeout) == (30, 300)


async def test_code_runs_and_its_streams_are_told(client: Client) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)"
    data = await client.data("code.execute_code", language="python", code=code)
    assert (data.language, data.status, data.code) == ("python", "ok", code)
    assert (data.stdout.strip(), data.stderr.strip()) == ("out", "err")
    assert data.exit_code in (0, None)
    assert not data.traceback


async def test_an_error_has_a_traceback(client: Client) -> None:
    data = await client.data("code.execute_code", language="python", code="1 / 0")
    assert data.status == "error"
    assert any("ZeroDivisionError" in line for line in data.traceback)


async def test_a_timeout(client: Client) -> None:
    data = await client.data("code.execute_code", language="python", code="while True: pass", timeout=1)
    assert data.status == "timeout"


async def test_calls_share_nothing_by_default(client: Client) -> None:
    before = set((await client.data("jupyter.list_sessions")).sessions)
    data = await client.data("code.execute_code", language="python", code="x = 1")
    assert data.session_id is None
    assert (await client.data("code.execute_code", language="python", code="x")).status == "error"
    assert set((await client.data("jupyter.list_sessions")).sessions) <= before


async def test_a_stateful_call_keeps_its_session(client: Client) -> None:
    body = {"language": "python", "stateful": True}
    name = (await client.data("code.execute_code", code="x = 41", **body)).session_id
    assert name
    try:
        data = await client.data("code.execute_code", code="print(x + 1)", session_id=name, **body)
        assert (data.stdout.strip(), data.session_id) == ("42", name)
    finally:
        await client("jupyter.delete_session", name)


async def test_a_stateful_call_opens_the_session_it_names(client: Client, session_id: str) -> None:
    body = {"language": "python", "stateful": True, "session_id": session_id}
    assert (await client.data("code.execute_code", code="x = 41", **body)).session_id == session_id
    assert (await client.data("code.execute_code", code="x + 1", **body)).status == "ok"


async def test_cwd(client: Client, folder: str) -> None:
    await client.data("file.write_file", file=f"{folder}/here.txt", content="found")
    body = {"language": "python", "code": "print(open('here.txt').read())", "cwd": folder}
    assert (await client.data("code.execute_code", **body)).stdout.strip() == "found"


@pytest.mark.parametrize("more", [{"timeout": 0}, {"timeout": 301}, {"language": "cobol"}, {"code": None}])
async def test_what_is_not_valid(client: Client, more: dict[str, object]) -> None:
    await client.refused(422, "code.execute_code", **{"language": "python", "code": "1", **more})


@only_ours("it runs JavaScript")
async def test_javascript_is_refused_in_the_envelope(client: Client) -> None:
    answer = await client("code.execute_code", language="javascript", code="1 + 1")
    assert answer.success is False
    assert "Node.js" in answer.message
    assert "/v1/code/info" in answer.hint
    assert (answer.data.status, answer.data.language) == ("error", "javascript")
    assert [info.language for info in (await client.data("code.get_info")).languages] == ["python"]
