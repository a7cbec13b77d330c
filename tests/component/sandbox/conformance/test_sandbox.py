"""`/v1/sandbox`, keys, and what is left out."""

from __future__ import annotations

import httpx
import pytest

from .conftest import Client, Service, only_ours

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_context(client: Client) -> None:
    context = await client("sandbox.get_context")
    assert context.success is not False
    assert context.home_dir.startswith("/")
    assert context.version
    system = context.detail.system
    assert (system.os, system.home_dir) == ("Linux", context.home_dir)
    assert context.detail.runtime.python[0].ver.startswith("3.")


async def test_home_is_a_folder_that_can_be_listed(client: Client) -> None:
    home = (await client("sandbox.get_context")).home_dir
    assert (await client.data("file.list_path", path=home)).path == home


async def test_python_packages(client: Client) -> None:
    packages = await client.data("sandbox.get_python_packages")
    assert "numpy" in str(packages)


@only_ours("the image's packages have a shape that is not documented")
async def test_packages_have_name_and_version(client: Client) -> None:
    packages = {
        package["name"].lower(): package["version"] for package in await client.data("sandbox.get_python_packages")
    }
    assert packages["ipykernel"][0].isdigit()


@only_ours("it has all of these")
@pytest.mark.parametrize(
    ("method", "body", "part"),
    [
        ("shell.exec_command", {"command": "ls"}, "subprocess"),
        ("bash.exec", {"command": "ls"}, "subprocess"),
        ("browser.get_info", {}, "no browser"),
        ("nodejs.execute_code", {"code": "1"}, "no Node.js"),
        ("mcp.list_mcp_servers", {}, "no MCP servers"),
        ("file.watch_list", {}, "/v1/file/list"),
        ("file.search_in_file", {"file": "/x", "regex": "x"}, "in a cell"),
        ("file.grep_files", {"path": "/x", "pattern": "x"}, "in a cell"),
        ("file.str_replace_editor", {"command": "view", "path": "/x"}, "/v1/file/replace"),
        ("sandbox.get_nodejs_packages", {}, "/v1/sandbox/packages/python"),
        ("sandbox.list_hooks", {}, "no hooks"),
    ],
)
async def test_what_is_left_out_is_404_with_a_hint(
    client: Client, method: str, body: dict[str, str], part: str
) -> None:
    answer = await client.refused(404, method, **body)
    assert answer["success"] is False
    assert part in answer["hint"]


@only_ours("it has all of these")
@pytest.mark.parametrize(
    "path", ["/vnc/index.html", "/mcp", "/tickets", "/cdp/json/version", "/v1/sandbox/observe/live"]
)
async def test_pages_that_are_left_out_are_404_with_a_hint(service: Service, path: str) -> None:
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        for answer in (await http.get(path), await http.post(path)):
            assert answer.status_code == 404
            assert answer.json()["success"] is False
            assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("headers", "params", "allowed"),
    [
        ({"X-AIO-API-Key": "{key}"}, {}, True),
        ({"Authorization": "Bearer {key}"}, {}, True),
        ({}, {"api_key": "{key}"}, True),
        ({}, {}, False),
        ({"X-AIO-API-Key": "wrong"}, {}, False),
        ({"Authorization": "Bearer wrong"}, {}, False),
        ({"Authorization": "Basic {key}"}, {}, False),
        ({}, {"api_key": "wrong"}, False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/sandbox", "/v1/jupyter/info", "/v1/code/info"])
async def test_keys(
    service: Service, headers: dict[str, str], params: dict[str, str], allowed: bool, path: str
) -> None:
    if not service.key:
        pytest.skip("this sandbox has no key")
    filled = {name: value.format(key=service.key) for name, value in headers.items()}
    query = {name: value.format(key=service.key) for name, value in params.items()}
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
        answer = await http.get(path, headers=filled, params=query)
    assert answer.status_code == (200 if allowed else 401)
