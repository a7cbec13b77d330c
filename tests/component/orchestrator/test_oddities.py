"""HTTP and JSON at their edges: all of it has a documented answer, and none of it changes whose request it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.component.orchestrator.chatting import MODEL, PLAIN, user
from tests.component.orchestrator.conftest import World, image, png, text


def process(extra: str = "") -> bytes:
    body = json.dumps({"messages": [text(), image(png())]})
    return (body[:-1] + extra + "}").encode()


BAD_JSON = {
    "a surrogate as a name": process(', "metadata": {"\\ud800": 1}'),
    "a surrogate in a value": process(', "metadata": {"a": "\\ud800"}'),
    "nested too deeply": process(', "metadata": {"a": ' + "[" * 200 + "]" * 200 + "}"),
    "a huge whole number": process(f', "max_turns": {10**400}'),
    "a number of 5000 digits": process(f', "max_turns": {"9" * 5000}'),
    "infinity": process(', "deadline_seconds": Infinity'),
    "an infinite number": process(', "deadline_seconds": 1e400'),
    "a text for a number": process(', "max_turns": "2"'),
    "a truth value for a number": process(', "max_turns": true'),
    "a text for a truth value": process(', "stream": "true"'),
    "bytes that are not UTF-8": b'{"messages": "\xff"}',
    "a strange name for a role": process().replace(b'"type": "text"', b'"role": "\\ud800"'),
    "compressed": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("raw", BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_json_at_its_edges(world: World, raw: bytes) -> None:
    response = await world.http.post("/process", content=raw)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request"), response.text
    world.assert_clean()


async def test_what_is_taken(world: World) -> None:
    deep: Any = 1
    for _ in range(97):
        deep = [deep]
    result = await world.answer(text(), image(png()), metadata={"deep": deep}, max_turns=2.0)
    assert result["metadata"] == {"deep": deep}
    response = await world.http.post(
        "/process", content=process(', "metadata": {"a": 1}, "metadata": {"a": 2}'), headers={"Content-Type": "text/x"}
    )
    assert response.json()["metadata"] == {"a": 2}


async def test_a_name_that_is_there_twice_does_not_slip_through(world: World) -> None:
    body = json.dumps({"model": MODEL, "messages": user(), **PLAIN})
    raw = body[:-1] + ', "cache_salt": "guessed", "cache_salt": null, "priority": 5, "priority": null}'
    assert (await world.http.post("/v1/chat/completions", content=raw)).status_code == 200
    sent = world.engine.requests[-1]
    assert sent["cache_salt"] != "guessed"
    assert "priority" not in sent


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Tenant": "bio"},
        {"X-S1VL-Tenant": "bio", "Tenant": "bio"},
        {"X-Forwarded-User": "bio", "X-Remote-User": "bio"},
        {"X-Original-URL": "/bio/process", "X-Rewrite-URL": "/internal/tenants"},
        {"Host": "bio"},
    ],
)
async def test_no_header_but_the_key_names_the_tenant(world: World, headers: dict[str, str]) -> None:
    world.put("secret.png", png(), "bio")
    response = await world.ask(text(), paths=["/data/images/secret.png"])
    assert response.status_code == 404
    response = await world.http.post(
        "/process",
        json={"messages": [text()], "image_path_list": ["/data/images/secret.png"]},
        headers={"X-API-Key": "key-chem", **headers},
    )
    assert (response.status_code, response.json()["error"]["code"]) == (404, "image_not_found")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-Key": "key-chem", "Authorization": "Bearer key-chem"}, 200),
        ({"X-API-Key": "key-chem", "Authorization": "Bearer EMPTY"}, 200),
        ({"X-API-Key": "key-chem", "Authorization": "Basic eDp5"}, 200),
        ({"X-API-Key": "key-chem", "Authorization": "Bearer key-bio"}, 401),
        ({"X-API-Key": "key-chem", "Authorization": "Bearer wrong"}, 401),
        ({"X-API-Key": "wrong", "Authorization": "Bearer key-chem"}, 401),
        ({"X-API-Key": "EMPTY", "Authorization": "Bearer EMPTY"}, 200),
        ({"Authorization": "bearer key-chem"}, 200),
        ({"Authorization": "Basic eDp5"}, 401),
    ],
)
async def test_two_keys(world: World, headers: dict[str, str], status: int) -> None:
    body = {"messages": [text(), image(png())]}
    assert (await world.http.post("/process", json=body, headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/bio/process", "//process", "/process/", "/process/../internal/tenants", "/%2e/x"])
async def test_paths_that_are_none(world: World, path: str) -> None:
    status, body = await raw_request(world, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")


async def raw_request(world: World, raw: bytes) -> tuple[int, bytes]:
    """Send bytes and read until the server closes; returns status and body."""
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


NO_HTTP = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length that is none": b"Content-Length: two\r\n\r\n{}",
    "an unknown encoding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a broken header": b"X Y: z\r\n\r\n",
    "a header with NUL": b"X-API-Key: a\x00b\r\n\r\n",
    "a line that is folded into nothing": b" X: y\r\n\r\n",
}


@pytest.mark.parametrize("rest", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http(world: World, rest: bytes) -> None:
    status, _ = await raw_request(world, b"POST /process HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + rest)
    assert status in (400, 431, 501)
    assert not world.service.active
