from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from s1vl_operator.desired import vllm
from tests.unit.operator.desired.conftest import CONTEXT, deployment


def test_the_cards_command_line() -> None:
    cr = deployment()
    assert vllm.command(cr) == ["vllm", "serve", "ScienceOne-AI/S1-VL-32B"]
    assert vllm.args(cr, CONTEXT) == [
        *("--served-model-name", "ScienceOne-AI/S1-VL-32B"),
        *("--tensor-parallel-size", "4"),
        *("--max-model-len", "32768"),
        *("--limit-mm-per-prompt", '{"image":15,"video":0}'),
        *("--reasoning-parser", "deepseek_r1"),
        "--enable-prefix-caching",
        *("--gpu-memory-utilization", "0.95"),
        *("--port", "9200"),
        *("--allowed-local-media-path", "/srv/s1vl/images"),
    ]


@pytest.mark.parametrize(
    ("image", "engine", "version"),
    [
        ("vllm/vllm-openai:v0.11.2", {}, (0, 11, 2)),
        ("vllm/vllm-openai:0.18.0", {}, (0, 18, 0)),
        ("vllm/vllm-openai:v0.24.0-cu130", {}, (0, 24, 0)),
        ("registry:5000/vllm@sha256:0123", {}, (0, 11, 0)),
        ("registry:5000/vllm", {}, (0, 11, 0)),
        ("vllm:latest", {}, (0, 11, 0)),
        ("sim:0.1.0", {}, (0, 11, 0)),
        ("vllm:v0.20.1@sha256:0123", {}, (0, 20, 1)),
        ("vllm:v0.11.2", {"version": "0.32.0"}, (0, 32, 0)),
        ("vllm:v0.11.2", {"image": "own:v0.19.0"}, (0, 19, 0)),
        ("vllm:v0.11.2", {"image": "own:nightly", "version": "0.20.0"}, (0, 20, 0)),
    ],
)
def test_version(image: str, engine: dict[str, Any], version: tuple[int, int, int]) -> None:
    assert vllm.version(deployment({"engine": engine}), replace(CONTEXT, engine_image=image)) == version


@pytest.mark.parametrize(
    ("image", "engine", "expected"),
    [
        ("a/b:v1", {}, "a/b:v1"),
        ("a/b:v0.11.2", {"version": "0.18.0"}, "a/b:v0.18.0"),
        ("host:5000/a/b", {"version": "0.18.0"}, "host:5000/a/b:v0.18.0"),
        ("host:5000/a/b:c@sha256:0", {"version": "0.18.0"}, "host:5000/a/b:v0.18.0"),
        ("a/b:v1", {"image": "c:d", "version": "0.18.0"}, "c:d"),
    ],
)
def test_image(image: str, engine: dict[str, Any], expected: str) -> None:
    assert vllm.image(deployment({"engine": engine}), replace(CONTEXT, engine_image=image)) == expected


@pytest.mark.parametrize(
    ("spec", "words", "there"),
    [
        ({"engine": {"version": "0.17.9"}}, ["--shutdown-timeout"], False),
        ({"engine": {"version": "0.18.0", "drainTimeoutSeconds": 60}}, ["--shutdown-timeout", "60"], True),
        ({"engine": {"prefixCaching": False}}, ["--no-enable-prefix-caching"], True),
        ({"engine": {"prefixCaching": False}}, ["--enable-prefix-caching"], False),
        ({"model": {"servedName": "s1"}}, ["--served-model-name", "s1"], True),
        ({"model": {"source": {"huggingFace": {"revision": "main"}}}}, ["--revision", "main"], True),
        ({}, ["--revision"], False),
        ({"engine": {"gpus": 8, "imagesPerPrompt": 2}}, ["--tensor-parallel-size", "8"], True),
    ],
)
def test_flags(spec: dict[str, Any], words: list[str], there: bool) -> None:
    args = vllm.args(deployment(spec), CONTEXT)
    found = any(args[i : i + len(words)] == words for i in range(len(args)))
    assert found is there


def test_images_per_prompt_as_vllm_takes_it() -> None:
    args = vllm.args(deployment({"engine": {"imagesPerPrompt": 2}}), CONTEXT)
    assert json.loads(args[args.index("--limit-mm-per-prompt") + 1]) == {"image": 2, "video": 0}


def test_the_users_arguments_come_last() -> None:
    args = vllm.args(deployment({"engine": {"extraArgs": ["--max-model-len", "8192"]}}), CONTEXT)
    assert args[-2:] == ["--max-model-len", "8192"]


@pytest.mark.parametrize(("path", "model"), [("", "/weights"), ("s1/vl", "/weights/s1/vl")])
def test_weights_on_a_claim(path: str, model: str) -> None:
    cr = deployment({"model": {"source": {"existingClaim": {"name": "w", "path": path}}}})
    assert vllm.command(cr) == ["vllm", "serve", model]
    assert vllm.args(cr, CONTEXT)[:2] == ["--served-model-name", "ScienceOne-AI/S1-VL-32B"]
