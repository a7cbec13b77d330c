"""The command line of `vllm serve`: which flags exist, in which version, and what they refuse.

Flags that only concern a GPU or the weights are read and checked like vLLM does and then have no effect.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hack.engine_sim.versions import Behaviour, Release

REASONING_PARSERS = (
    "deepseek_r1", "deepseek_v3", "ernie45", "glm45", "gptoss", "granite", "hunyuan_a13b", "kimi_k2", "minimax_m2",
    "mistral", "olmo3", "openai_gptoss", "qwen3", "seed_oss", "step3",
)  # fmt: skip
SPLITTING_PARSERS = ("deepseek_r1", "qwen3")
MODEL_MAX_LEN = 262_144
ATTENTION_HEADS = 64
DEFAULT_LIMIT = 999  # vLLM's limit for a modality that the flag does not name


class ConfigError(Exception):
    """A value that vLLM accepts on its command line and refuses while it starts (exit 1, not 2)."""


@dataclass(frozen=True)
class ServeOptions:
    """What `vllm serve` was asked for, checked. Sizes in tokens unless the name says otherwise."""

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    max_model_len: int
    image_limit: int
    video_limit: int
    reasoning_parser: str
    prefix_caching: bool
    media_root: Path | None
    shutdown_timeout: float
    mm_cache_gib: float
    constrain_reasoning: bool
    max_num_seqs: int
    max_queued_requests: int | None
    stream_interval: int
    api_keys: tuple[str, ...]
    track_load: bool
    access_log: bool
    quiet_paths: tuple[str, ...]
    report_cached_tokens: bool


def human_int(text: str) -> int:
    """Read vLLM's sizes: `32768`, `32k` (32,000), `32K` (32,768); raises ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG])?", text.strip())
    if not match or (match[2] is None and "." in match[1]):
        raise ValueError(f"invalid size {text!r}")
    scale = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}.get(match[2] or "", 1)
    return int(float(match[1]) * scale)


def _typed(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to {convert}.") from error

    return parse


_JSON = _typed(json.loads)
_SIZE = _typed(human_int)
_TEXT: Callable[[str], Any] = str
_SWITCH = object()
_AT_LEAST_ONE = (
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs", "stream_interval",
)  # fmt: skip

# name, type (or _SWITCH for --x/--no-x), default, first version, choices
_FLAGS: tuple[tuple[str, Any, Any, Release, tuple[str, ...] | None], ...] = (
    ("model", _TEXT, None, (0, 0, 0), None),
    ("host", _TEXT, "", (0, 0, 0), None),
    ("port", int, 8000, (0, 0, 0), None),
    ("uvicorn-log-level", _TEXT, "info", (0, 0, 0), ("debug", "info", "warning", "error", "critical", "trace")),
    ("disable-uvicorn-access-log", _SWITCH, False, (0, 0, 0), None),
    ("disable-access-log-for-endpoints", _TEXT, "", (0, 16, 0), None),
    ("root-path", _TEXT, "", (0, 0, 0), None),
    ("chat-template", _TEXT, None, (0, 0, 0), None),
    ("enable-log-requests", _SWITCH, False, (0, 0, 0), None),
    ("max-log-len", int, None, (0, 0, 0), None),
    ("enable-server-load-tracking", _SWITCH, False, (0, 0, 0), None),
    ("enable-prompt-tokens-details", _SWITCH, False, (0, 0, 0), None),
    ("enable-auto-tool-choice", _SWITCH, False, (0, 0, 0), None),
    ("tool-call-parser", _TEXT, None, (0, 0, 0), None),
    ("api-server-count", int, 1, (0, 0, 0), None),
    ("shutdown-timeout", _typed(float), 0.0, (0, 18, 0), None),
    ("max-num-queued-reqs", int, None, (0, 30, 0), None),
    ("max-num-queued-tokens", int, None, (0, 30, 0), None),
    ("tokenizer", _TEXT, None, (0, 0, 0), None),
    ("trust-remote-code", _SWITCH, False, (0, 0, 0), None),
    ("dtype", _TEXT, "auto", (0, 0, 0), ("auto", "bfloat16", "float", "float16", "float32", "half")),
    ("seed", int, 0, (0, 0, 0), None),
    ("revision", _TEXT, None, (0, 0, 0), None),
    ("max-model-len", _SIZE, None, (0, 0, 0), None),
    ("quantization", _TEXT, None, (0, 0, 0), None),
    ("enforce-eager", _SWITCH, False, (0, 0, 0), None),
    ("hf-overrides", _JSON, None, (0, 0, 0), None),
    ("generation-config", _TEXT, "auto", (0, 0, 0), None),
    ("override-generation-config", _JSON, None, (0, 0, 0), None),
    ("enable-sleep-mode", _SWITCH, False, (0, 0, 0), None),
    ("allowed-local-media-path", _TEXT, "", (0, 0, 0), None),
    ("load-format", _TEXT, "auto", (0, 0, 0), None),
    ("download-dir", _TEXT, None, (0, 0, 0), None),
    ("reasoning-parser", _TEXT, "", (0, 0, 0), None),
    ("structured-outputs-config", _JSON, None, (0, 11, 0), None),
    ("distributed-executor-backend", _TEXT, None, (0, 0, 0), None),
    ("tensor-parallel-size", int, 1, (0, 0, 0), None),
    ("pipeline-parallel-size", int, 1, (0, 0, 0), None),
    ("data-parallel-size", int, 1, (0, 0, 0), None),
    ("enable-expert-parallel", _SWITCH, False, (0, 0, 0), None),
    ("gpu-memory-utilization", _typed(float), 0.9, (0, 0, 0), None),
    ("block-size", int, 16, (0, 0, 0), None),
    ("swap-space", _typed(float), 4.0, (0, 0, 0), None),
    ("kv-cache-dtype", _TEXT, "auto", (0, 0, 0), None),
    ("enable-prefix-caching", _SWITCH, True, (0, 0, 0), None),
    ("cpu-offload-gb", _typed(float), 0.0, (0, 0, 0), None),
    ("limit-mm-per-prompt", _JSON, None, (0, 0, 0), None),
    ("media-io-kwargs", _JSON, None, (0, 0, 0), None),
    ("mm-processor-kwargs", _JSON, None, (0, 0, 0), None),
    ("mm-processor-cache-gb", _typed(float), 4.0, (0, 10, 2), None),
    ("mm-processor-cache-type", _TEXT, "lru", (0, 11, 0), ("lru", "shm")),
    ("mm-encoder-tp-mode", _TEXT, "weights", (0, 10, 2), ("weights", "data")),
    ("skip-mm-profiling", _SWITCH, False, (0, 11, 0), None),
    ("max-num-batched-tokens", _SIZE, None, (0, 0, 0), None),
    ("max-num-seqs", _SIZE, 256, (0, 0, 0), None),
    ("enable-chunked-prefill", _SWITCH, True, (0, 0, 0), None),
    ("async-scheduling", _SWITCH, None, (0, 11, 0), None),
    ("stream-interval", int, 1, (0, 11, 0), None),
    ("speculative-config", _JSON, None, (0, 0, 0), None),
    ("kv-transfer-config", _JSON, None, (0, 0, 0), None),
    ("compilation-config", _JSON, None, (0, 0, 0), None),
)


def build_parser(behaviour: Behaviour) -> argparse.ArgumentParser:
    """Return the parser of `vllm` with the flags that the simulated version has."""
    parser = argparse.ArgumentParser(prog="vllm", description="vLLM CLI (simulated engine)")
    parser.add_argument("-v", "--version", action="version", version=behaviour.version)
    serve = parser.add_subparsers(dest="command", required=True).add_parser(
        "serve", usage="vllm serve [model_tag] [options]"
    )
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--served-model-name", nargs="+", default=[])
    serve.add_argument("--api-key", nargs="+", default=[])
    for name, kind, default, since, choices in _FLAGS:
        if behaviour.release < since:
            continue
        if kind is _SWITCH:
            serve.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default)
        else:
            serve.add_argument(f"--{name}", type=kind, default=default, choices=choices)
    return parser


def merge_dotted(arguments: Sequence[str]) -> list[str]:
    """Rewrite vLLM's other spellings: `--a_b` to `--a-b`, `--a.b 1` and `--a.b=1` to `--a '{"b": 1}'`.

    Raises:
        ConfigError: when a dotted flag has no value.
    """
    plain: list[str] = []
    dotted: dict[str, dict[str, Any]] = {}
    items = iter(arguments)
    for item in items:
        if not item.startswith("--"):
            plain.append(item)
            continue
        name, equals, value = item.partition("=")
        name = "--" + name[2:].replace("_", "-")
        if "." not in name:
            plain.append(name + equals + value)
            continue
        if not equals:
            value = next(items, "")
            if not value:
                raise ConfigError(f"{name} needs a value")
        flag, *keys = name.split(".")
        target = dotted.setdefault(flag, {})
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = _json_or_text(value)
    for flag, content in dotted.items():
        plain += [flag, json.dumps(content)]
    return plain


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def parse_options(arguments: Sequence[str], behaviour: Behaviour) -> ServeOptions:
    """Read `vllm`'s arguments (those after the program's name).

    Raises:
        SystemExit: 0 for --version and --help, 2 for what argparse refuses, as vLLM does.
        ConfigError: for values refused only while starting.
    """
    parser = build_parser(behaviour)
    parsed = vars(parser.parse_args(merge_dotted(arguments)))
    return _checked(parsed)


def _checked(parsed: dict[str, Any]) -> ServeOptions:
    model = parsed["model_tag"] or parsed["model"] or "Qwen/Qwen3-0.6B"
    limits = parsed["limit_mm_per_prompt"] or {}
    if not isinstance(limits, dict):
        _refuse("limit_mm_per_prompt", "Input should be a valid dictionary", limits)
    root = parsed["allowed_local_media_path"]
    structured = parsed.get("structured_outputs_config") or {}
    max_model_len = MODEL_MAX_LEN if parsed["max_model_len"] is None else parsed["max_model_len"]
    _check_sizes(parsed, max_model_len)
    if parsed["reasoning_parser"] and parsed["reasoning_parser"] not in REASONING_PARSERS:
        names = ", ".join(REASONING_PARSERS)
        raise ConfigError(
            f"KeyError: \"Reasoning parser '{parsed['reasoning_parser']}' not found. Available parsers: {names}\""
        )
    if parsed["reasoning_parser"] and parsed["reasoning_parser"] not in SPLITTING_PARSERS:
        raise ConfigError(f"the engine simulator splits reasoning only for {', '.join(SPLITTING_PARSERS)}")
    return ServeOptions(
        model=model,
        served_names=tuple(parsed["served_model_name"]) or (model,),
        host=parsed["host"],
        port=parsed["port"],
        max_model_len=max_model_len,
        image_limit=_limit(limits, "image"),
        video_limit=_limit(limits, "video"),
        reasoning_parser=parsed["reasoning_parser"],
        prefix_caching=bool(parsed["enable_prefix_caching"]),
        media_root=Path(root).resolve() if root else None,
        shutdown_timeout=parsed.get("shutdown_timeout", 0.0),
        mm_cache_gib=parsed.get("mm_processor_cache_gb", 4.0),
        constrain_reasoning=bool(structured.get("enable_in_reasoning", False)),
        max_num_seqs=parsed["max_num_seqs"],
        max_queued_requests=parsed.get("max_num_queued_reqs"),
        stream_interval=parsed.get("stream_interval", 1),
        api_keys=tuple(parsed["api_key"]) or tuple(filter(None, [os.environ.get("VLLM_API_KEY", "")])),
        track_load=parsed["enable_server_load_tracking"],
        access_log=not parsed["disable_uvicorn_access_log"],
        quiet_paths=tuple(filter(None, parsed.get("disable_access_log_for_endpoints", "").split(","))),
        report_cached_tokens=parsed["enable_prompt_tokens_details"],
    )


def _check_sizes(parsed: dict[str, Any], max_model_len: int) -> None:
    memory = parsed["gpu_memory_utilization"]
    if not 0 < memory <= 1:
        bound = "greater than 0" if memory <= 0 else "less than or equal to 1"
        _refuse("gpu_memory_utilization", f"Input should be {bound}", memory)
    for name in _AT_LEAST_ONE:
        if parsed.get(name, 1) < 1:
            _refuse(name, "Input should be greater than or equal to 1", parsed[name])
    parallel = parsed["tensor_parallel_size"]
    if ATTENTION_HEADS % parallel:
        _refuse(
            "model_config",
            f"Total number of attention heads ({ATTENTION_HEADS}) must be divisible by tensor parallel size "
            f"({parallel}).",
            parallel,
        )
    if not 0 < max_model_len <= MODEL_MAX_LEN:
        _refuse(
            "max_model_len",
            f"User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
            f"(max_position_embeddings={MODEL_MAX_LEN} or model_max_length=None in model's config.json).",
            max_model_len,
        )


def _limit(limits: dict[str, Any], modality: str) -> int:
    value = limits.get(modality, DEFAULT_LIMIT)
    if isinstance(value, dict):
        value = value.get("count", DEFAULT_LIMIT)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _refuse(f"limit_per_prompt.{modality}", "Input should be a valid integer of at least 0", value)
    return int(value)


def _refuse(name: str, message: str, value: object) -> NoReturn:
    raise ConfigError(
        f"pydantic_core._pydantic_core.ValidationError: 1 validation error\n{name}\n  {message} "
        f"[input_value={value!r}, input_type={type(value).__name__}]"
    )
