"""`/v1/jupyter`: cells and sessions."""

from __future__ import annotations

import base64

import pytest

from ..conftest import eventually
from .conftest import Client, Service, connect, only_ours, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = """
import io
from IPython.display import Image
from PIL import Image as Picture
file = io.BytesIO()
Picture.new("RGB", (3, 2)).save(file, "png")
Image(file.getvalue())
"""


async def test_the_envelope(client: Client, session_id: str) -> None:
    answer = await client("jupyter.execute_code", code="40 + 2", session_id=session_id)
    assert answer.success is True
    assert isinstance(answer.message, str)
    data = answer.data
    assert (data.status, data.code, data.session_id) == ("ok", "40 + 2", session_id)
    assert data.kernel_name.startswith("python3")
    assert data.execution_count >= 1
    assert [output.output_type for output in data.outputs] == ["execute_result"]
    assert data.outputs[0].data["text/plain"] == "42"


@pytest.mark.parametrize(
    ("code", "status", "types"),
    [
        ("print('a')", "ok", ["stream"]),
        ("x = 1", "ok", []),
        ("print('a')\n1 / 0", "error", ["stream", "error"]),
        ("1 / 0", "error", ["error"]),
        ("not python", "error", ["error"]),
        (PICTURE, "ok", ["execute_result"]),
        ("from IPython.display import display\ndisplay(1)", "ok", ["display_data"]),
    ],
)
async def test_statuses_and_outputs(client: Client, session_id: str, code: str, status: str, types: list[str]) -> None:
    """An error of the code is HTTP 200 and `success`: only `data.status` tells."""
    data = await client.run(code, session_id)
    assert data.status == status
    assert [output.output_type for output in data.outputs] == types


async def test_an_error_says_what_and_where(client: Client, session_id: str) -> None:
    (output,) = (await client.run("1 / 0", session_id)).outputs
    assert (output.ename, output.evalue) == ("ZeroDivisionError", "division by zero")
    assert any("ZeroDivisionError" in line for line in output.traceback)


async def test_both_streams_have_their_names(client: Client, session_id: str) -> None:
    data = await client.run("import sys\nprint('out')\nprint('err', file=sys.stderr)", session_id)
    assert {(output.name, output.text.strip()) for output in data.outputs} == {("stdout", "out"), ("stderr", "err")}


async def test_pictures_are_base64(client: Client, session_id: str) -> None:
    (output,) = (await client.run(PICTURE, session_id)).outputs
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")


async def test_a_timeout_interrupts_and_keeps_the_session(client: Client, session_id: str) -> None:
    await client.run("kept = 7", session_id)
    data = await client.run("import time\ntime.sleep(60)", session_id, timeout=1)
    assert data.status == "timeout"
    assert await client.printed("print(kept)", session_id) == "7"


@pytest.mark.parametrize("seconds", [0, 301, -1])
async def test_timeouts_out_of_bounds(client: Client, session_id: str, seconds: int) -> None:
    await client.refused(422, "jupyter.execute_code", code="1", session_id=session_id, timeout=seconds)


@pytest.mark.parametrize("seconds", [1, 300])
async def test_timeouts_at_the_bounds(client: Client, session_id: str, seconds: int) -> None:
    assert (await client.run("1", session_id, timeout=seconds)).status == "ok"


async def test_the_code_is_required(client: Client) -> None:
    await client.refused(422, "jupyter.execute_code", code=None)


async def test_sessions_keep_their_state_and_count(client: Client, session_id: str) -> None:
    first = await client.run("x = 1", session_id)
    second = await client.run("x += 1\nx", session_id)
    assert second.outputs[0].data["text/plain"] == "2"
    assert second.execution_count == first.execution_count + 1


async def test_sessions_do_not_share(client: Client, session_id: str) -> None:
    await client.run("x = 1", session_id)
    other = f"{session_id}-other"
    try:
        assert (await client.run("x", other)).outputs[0].ename == "NameError"
    finally:
        await client("jupyter.delete_session", other)


async def test_an_unknown_session_is_opened_listed_and_deleted(client: Client, session_id: str) -> None:
    assert (await client.run("x = 1", session_id)).session_id == session_id
    listed = (await client.data("jupyter.list_sessions")).sessions[session_id]
    assert listed.kernel_name.startswith("python3")
    assert listed.age_seconds >= 0
    assert listed.last_used > 1_700_000_000
    await client.data("jupyter.delete_session", session_id)
    assert session_id not in (await client.data("jupyter.list_sessions")).sessions
    assert (await client.run("x", session_id)).outputs[0].ename == "NameError"


async def test_a_session_without_a_name_gets_one(client: Client) -> None:
    name = (await client.data("jupyter.execute_code", code="x = 5")).session_id
    assert name
    try:
        assert await client.printed("print(x)", name) == "5"
    finally:
        await client("jupyter.delete_session", name)


async def test_create(client: Client, session_id: str) -> None:
    data = await client.data("jupyter.create_session", session_id=session_id)
    assert data.session_id == session_id
    assert data.kernel_name.startswith("python3")
    assert data.message
    assert session_id in (await client.data("jupyter.list_sessions")).sessions


async def test_info(client: Client, session_id: str) -> None:
    await client.run("1", session_id)
    info = await client.data("jupyter.get_info")
    assert info.default_kernel in info.available_kernels
    assert info.active_sessions >= 1
    assert info.max_sessions >= info.active_sessions
    assert info.session_timeout_seconds == 1800


async def test_the_kernel_can_be_named(client: Client, session_id: str) -> None:
    kernel = (await client.data("jupyter.get_info")).available_kernels[-1]
    data = await client.run("1", session_id, kernel_name=kernel)
    assert data.kernel_name.startswith("python3")


@only_ours("the status of its refusal is not documented for the image")
async def test_an_unknown_kernel_is_refused(client: Client, session_id: str) -> None:
    body = await client.refused(400, "jupyter.execute_code", code="1", session_id=session_id, kernel_name="r")
    assert "python3" in body["hint"]


async def test_cwd(client: Client, session_id: str, folder: str) -> None:
    await client.data("file.write_file", file=f"{folder}/here.txt", content="found")
    text = await client.printed("import os\nprint(os.getcwd(), open('here.txt').read())", session_id, cwd=folder)
    assert text == f"{folder} found"


async def test_cwd_of_a_new_session(client: Client, session_id: str, folder: str) -> None:
    await client.data("file.write_file", file=f"{folder}/here.txt", content="found")
    await client.data("jupyter.create_session", session_id=session_id, cwd=folder)
    assert await client.printed("print(open('here.txt').read())", session_id) == "found"


@only_ours("the image's answer to a folder that is missing differs between its versions")
async def test_a_cwd_that_is_missing_is_refused(client: Client, session_id: str) -> None:
    body = await client.refused(400, "jupyter.execute_code", code="1", session_id=session_id, cwd="/none")
    assert body["success"] is False
    assert session_id not in (await client.data("jupyter.list_sessions")).sessions


@only_ours("its deletion of an unknown session is HTTP 200 in some versions")
async def test_deleting_an_unknown_session(client: Client) -> None:
    assert (await client.refused(404, "jupyter.delete_session", "none"))["success"] is False


@only_ours("what a killed kernel is told about differs")
async def test_a_kernel_that_ends_is_told_and_replaced(client: Client, session_id: str) -> None:
    data = await client.run("import os\nos._exit(3)", session_id)
    assert (data.status, data.state_lost) == ("error", True)
    assert await client.printed("print(1)", session_id) == "1"


@only_ours("it has no documented cap of a cell's output")
async def test_long_output_is_cut(client: Client, session_id: str) -> None:
    data = await client.run("print('x' * 10_000_000)", session_id)
    assert (data.status, data.truncated) == ("ok", True)


@only_ours("its limit is a number that only the running server knows, and deleting all sessions may disturb others")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_limit_and_delete_all(asynchronous: bool) -> None:
    async with serving(max_sessions=2, warm_kernels=1) as service:
        client = connect(service, asynchronous)
        await client.run("1", "a")
        await client.run("1", "b")
        body = await client.refused(400, "jupyter.execute_code", code="1", session_id="c")
        assert "session limit reached: 2 of 2" in body["message"]
        assert body["hint"]
        assert (await client.run("1", "a")).status == "ok"
        await client.data("jupyter.delete_sessions")
        assert (await client.data("jupyter.list_sessions")).sessions == {}


@only_ours("half an hour is too long to wait; `test_info` reads the number")
async def test_a_session_expires_when_unused() -> None:
    async with serving(session_timeout_seconds=2, warm_kernels=1) as service:
        client = connect(service, True)
        await client.run("x = 1", "s")

        async def expired() -> bool:
            return not (await client.data("jupyter.list_sessions")).sessions

        await eventually(expired)
        assert (await client.run("x", "s")).outputs[0].ename == "NameError"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_key_is_checked(service: Service, asynchronous: bool) -> None:
    if not service.key:
        pytest.skip("this sandbox has no key")
    for key in ("", "wrong", service.key[:-1], f"{service.key}x"):
        stranger = connect(Service(service.url, key), asynchronous)
        await stranger.refused(401, "jupyter.get_info")
