"""The OpenAPI documents of both ports, and the pages that show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from s1vl_orchestrator.errors import CATALOGUE, ErrorCode
from tests.component.orchestrator.conftest import World

PORTS = pytest.mark.parametrize("port", ["url", "management"])


async def document(world: World, port: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=getattr(world, port)) as http:
        schema: dict[str, Any] = (await http.get("/openapi.json")).json()
    return schema


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@PORTS
async def test_every_operation_is_described(world: World, port: str) -> None:
    schema = await document(world, port)
    assert schema["info"]["description"]
    tags = {tag["name"] for tag in schema["tags"]}
    names = []
    for name, operation in operations(schema):
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        names.append(operation["operationId"])
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            assert "X-Request-Id" in answer["headers"], (name, status)
            for content in answer["content"].values():
                assert content["schema"], (name, status)
            if int(status) in (429, 503) and not name.endswith("/readyz"):
                assert "Retry-After" in answer["headers"], (name, status)
        if "requestBody" in operation and "application/json" in operation["requestBody"]["content"]:
            assert operation["requestBody"]["content"]["application/json"]["examples"], name
    assert len(set(names)) == len(names)
    assert tags == {tag for _, operation in operations(schema) for tag in operation["tags"]}


@PORTS
async def test_every_reference_is_there_and_every_component_used(world: World, port: str) -> None:
    schema = await document(world, port)
    named = set(references(schema))
    for reference in named:
        at: Any = schema
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
    for name, model in schema["components"]["schemas"].items():
        assert f"#/components/schemas/{name}" in named, name
        assert model.get("description"), name


async def test_the_endpoints_of_clients_and_their_keys(world: World) -> None:
    schema = await document(world, "url")
    keys = {"bearer", "apiKey"}
    assert set(schema["components"]["securitySchemes"]) == keys
    secured = {
        name: [set(item) for item in operation["security"]]
        for name, operation in operations(schema)
        if "security" in operation
    }
    assert secured["post /process"] == secured["post /v1/chat/completions"] == [{"bearer"}, {"apiKey"}]
    assert secured["get /v1/models"] == secured["get /v1/models/{name}"] == [set(), {"bearer"}, {"apiKey"}]
    assert not set(secured) & {"get /healthz", "get /readyz", "get /metrics"}
    for path in ("/process", "/v1/chat/completions"):
        content = schema["paths"][path]["post"]["responses"]["200"]["content"]
        assert set(content) == {"application/json", "text/event-stream"}
    assert schema["paths"]["/process"]["post"]["parameters"][0]["name"] == "stream"


async def test_every_error_is_documented_with_its_status(world: World) -> None:
    documented = set()
    for _, operation in operations(await document(world, "url")):
        for status, answer in operation["responses"].items():
            for example in answer["content"].get("application/json", {}).get("examples", {}):
                documented.add((int(status), example))
    assert documented == {(code.status, code.value) for code in set(CATALOGUE) - {ErrorCode.METHOD_NOT_ALLOWED}}


@PORTS
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(world: World, port: str, page: str) -> None:
    async with httpx.AsyncClient(base_url=getattr(world, port)) as http:
        html = await http.get(page)
        assert html.status_code == 200
        used = re.findall(r"""(?:src|href)=["']([^"']+)["']""", html.text)
        assert len(used) >= 2
        for address in used:
            assert address.startswith("/"), address
            assert (await http.get(address)).status_code == 200, address
    # ReDoc's own script says so in its footer, which is a link and no part of the page.
    assert not re.findall(r"""https?://(?!fastapi|schema\.org)""", html.text)


async def test_the_management_port_has_what_only_the_operator_may_do(world: World) -> None:
    public, management = await document(world, "url"), await document(world, "management")
    health = {"/healthz", "/readyz", "/metrics"}
    assert set(public["paths"]) & set(management["paths"]) == health
    assert all(path.startswith("/internal/") for path in set(management["paths"]) - health)
    assert "securitySchemes" not in management["components"]
