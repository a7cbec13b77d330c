"""Keys and body sizes, before a request is read."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from s1vl_sandbox.guard import MAX_BODY_BYTES, MAX_UPLOAD_BYTES, Guard, key_matches, presented_keys

KEY = "k€y"
SHA256 = hashlib.sha256(KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ([(b"x-aio-api-key", b"a")], b"", [b"a"]),
        ([(b"X-AIO-API-Key", b" a ")], b"", [b"a"]),
        ([(b"authorization", b"Bearer a")], b"", [b"a"]),
        ([(b"authorization", b"bearer a")], b"", [b"a"]),
        ([(b"authorization", b"Basic a")], b"", []),
        ([], b"api_key=a", [b"a"]),
        ([], b"x=1&api_key=%2Fa%26", [b"/a&"]),
        ([(b"x-api-key", b"a")], b"key=a", []),
        ([(b"x-aio-api-key", b"a"), (b"authorization", b"Bearer b")], b"api_key=c", [b"a", b"b", b"c"]),
    ],
)
def test_where_keys_are_found(headers: list[tuple[bytes, bytes]], query: bytes, expected: list[bytes]) -> None:
    assert presented_keys(headers, query) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [([], False), ([b""], False), ([SHA256.encode()], False), ([b"no", KEY.encode()], True), ([KEY.encode()], True)],
)
def test_key_matches(keys: list[bytes], expected: bool) -> None:
    assert key_matches(keys, SHA256) is expected


@pytest.fixture
def client() -> httpx.AsyncClient:
    async def size(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/{path:path}", size, methods=["GET", "POST"])])
    transport = httpx.ASGITransport(Guard(app, SHA256))
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/healthz", {}, 200),
        ("/v1/x", {}, 401),
        ("/v1", {}, 401),
        ("/v1/x", {"X-AIO-API-Key": "wrong"}, 401),
        ("/v1/x", {"X-AIO-API-Key": KEY.encode()}, 200),
        ("/v1/x", {"Authorization": b"Bearer " + KEY.encode()}, 200),
        ("/v1/x?api_key=k%E2%82%ACy", {}, 200),
    ],
)
async def test_who_gets_in(client: httpx.AsyncClient, path: str, headers: dict[str, str | bytes], status: int) -> None:
    response = await client.get(path, headers={name.encode(): v for name, v in headers.items()})  # type: ignore[misc]
    assert response.status_code == status
    if status == 401:
        assert response.json()["success"] is False
        assert "X-AIO-API-Key" in response.json()["hint"]


async def test_a_declared_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/x", content=b"x" * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    assert response.json()["success"] is False


async def test_a_chunked_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(5):
            yield b"x" * (MAX_BODY_BYTES // 4)

    assert (await client.post("/x", content=chunks())).status_code == 413


async def test_a_body_at_the_limit_passes(client: httpx.AsyncClient) -> None:
    assert (await client.post("/x", content=b"x" * MAX_BODY_BYTES)).text == str(MAX_BODY_BYTES)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/jupyter/execute", MAX_BODY_BYTES),
        ("/v1/file/read", MAX_BODY_BYTES),
        ("/v1/file/upload/", MAX_BODY_BYTES),
        ("/v1/file/write", 16 * 2**20),
        ("/v1/file/upload", MAX_UPLOAD_BYTES),
    ],
)
async def test_routes_have_limits_of_their_own(client: httpx.AsyncClient, path: str, limit: int) -> None:
    headers = {b"X-AIO-API-Key": KEY.encode(), b"Content-Length": str(limit + 1).encode()}
    refused = await client.post(path, content=b"", headers=headers)  # type: ignore[arg-type]
    assert refused.status_code == 413
    assert str(limit) in refused.json()["message"]
    headers[b"Content-Length"] = str(limit).encode()
    assert (await client.post(path, content=b"", headers=headers)).status_code == 200  # type: ignore[arg-type]
