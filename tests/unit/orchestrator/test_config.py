"""The configuration file, and the code that reads outputs of cells."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from s1vl_orchestrator.config import ConfigError, SecretRef, config_version, parse_config
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.results import head_tail, read_cell
from s1vl_orchestrator.sandbox import Cell
from s1vl_orchestrator.sandbox_sessions import is_orphan, new_session_id

TEXT = """
version: 1
deployment: {namespace: default, name: demo}
engine:
  url: http://demo-engine.default.svc:9200
  model: ScienceOne-AI/S1-VL-32B
  maxModelLen: 32768
  imagesPerPrompt: 15
  mediaRoot: /srv/s1vl/images
images: {root: /srv/s1vl/images, clientPath: /data/images, sandboxPath: /mnt/data/images}
sandbox: {executionTimeoutSeconds: 30}
limits: {maxTurns: 8, deadlineSeconds: 270}
protocol: s1vl
anonymousTenant: ""
cacheSaltSecret: {name: demo-orchestrator, key: cacheSalt}
tenants:
- name: chem
  subPath: chem
  apiKeySecret: {name: demo-tenant-chem, key: apiKey}
  sandbox: {url: "http://demo-sandbox-chem.default.svc:8080", apiKeySecret: {name: demo-sandbox-chem, key: apiKey}}
  limits: {concurrentRequests: 4, queuedRequests: 16, requestsPerMinute: 0}
"""


def test_the_operators_file() -> None:
    config = parse_config(TEXT)
    assert config.limits.deadline_seconds == 270
    assert config.paths(config.tenants[0]).folder == Path("/srv/s1vl/images/chem")
    assert SecretRef(name="demo-orchestrator", key="cacheSalt") in config.secret_refs()
    assert len(config.secret_refs()) == 3
    assert len(config_version(TEXT)) == 64


def _set(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    at: Any = config
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 2, "version"),
        ("unknown", 1, "unknown"),
        ("engine.url", "demo-engine:9200", "engine.url"),
        ("engine.maxModelLen", 10, "engine.maxModelLen"),
        ("images.clientPath", "data/images", "images.clientPath"),
        ("images.sandboxPath", "/mnt/../etc", "images.sandboxPath"),
        ("images.root", "/", "images.root"),
        ("protocol", "nope", "unknown protocol 'nope'"),
        ("anonymousTenant", "bio", "anonymousTenant 'bio' is not a tenant"),
        ("tenants.0.subPath", "../bio", "tenants.0.subPath"),
        ("tenants.0.subPath", "/chem", "tenants.0.subPath"),
        ("tenants.0.limits.concurrentRequests", 0, "tenants.0.limits.concurrentRequests"),
        ("tenants.0.sandbox.url", "", "tenants.0.sandbox.url"),
        ("limits.deadlineSeconds", 0, "limits.deadlineSeconds"),
    ],
)
def test_what_is_refused_is_named(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(yaml.safe_dump(_set(yaml.safe_load(TEXT), path, value)))


@pytest.mark.parametrize(("first", "second"), [("chem", "chem/x"), ("", "bio"), ("a", "a")])
def test_folders_in_one_another(first: str, second: str) -> None:
    config = yaml.safe_load(TEXT)
    config["tenants"].append({**copy.deepcopy(config["tenants"][0]), "name": "bio", "subPath": second})
    config["tenants"][0]["subPath"] = first
    with pytest.raises(ConfigError, match="lie in one another"):
        parse_config(yaml.safe_dump(config))


@pytest.mark.parametrize("text", ["", "[", "- 1", "a: &a [*a]"])
def test_what_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text)


def test_outputs_of_a_cell() -> None:
    cell = Cell(
        "error",
        [
            {"output_type": "stream", "name": "stdout", "text": ["a\n", "saved /x/crop.PNG, b.jpg.\n"]},
            {"output_type": "execute_result", "data": {"text/plain": "'c.webp'"}},
            {
                "output_type": "display_data",
                "data": {"image/png": base64.b64encode(b"png").decode(), "text/plain": "F"},
            },
            {"output_type": "display_data", "data": {"image/png": 5}},
            {"output_type": "display_data", "data": None},
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[31mline\x1b[0m"] * 20},
            {"output_type": "new"},
        ],
    )
    output = read_cell(cell, 8192)
    assert output.printed_paths == ("/x/crop.PNG", "b.jpg", "c.webp")
    assert output.displayed == (b"png",)
    assert output.text.count("line") == 10
    assert output.text.endswith("E: v")
    assert "\x1b" not in output.text


def test_long_outputs_keep_head_and_tail() -> None:
    cut = head_tail("a" * 5000 + "b" * 5000, 100)
    assert cut.startswith("a" * 50)
    assert cut.endswith("b" * 50)
    assert "9900 characters left out" in cut


def test_sessions_say_when_they_are_orphans() -> None:
    session = new_session_id(100)
    assert not is_orphan(session, 0)
    assert is_orphan(session, 1e12)
    assert not is_orphan("another", 1e12)
    assert not is_orphan("s1vl-zz-x", 1e12)


def test_errors_have_one_form() -> None:
    error = ApiError(ErrorCode.RATE_LIMITED, "m", {"a": 1}, retry_after=0.2)
    assert error.body() == {"error": {"code": "rate_limited", "message": "m", "details": {"a": 1}}}
    assert error.headers() == {"Retry-After": "1"}


def test_the_documentation_has_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs/http-api.md").read_text()
    for code in ErrorCode:
        assert f"| {code.status} | `{code.value}` | {code.meaning} |" in page
