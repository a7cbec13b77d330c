"""A real vLLM without a GPU: its CPU build serving a tiny Qwen3-VL with made-up weights, started as the operator would.

What it says is noise unless a request scripts it (`scripted`); HTTP, chat template, image tokens, limits, errors,
reasoning parser, prefix cache, metrics and shutdown are the real ones.

    python -m hack.vllm install        once per machine, some minutes and 6 GiB in the user's cache folder
    python -m hack.vllm serve          in the foreground until Ctrl-C; prints VLLM_URL and VLLM_MEDIA for other programs

From Python: `serve.start(serve.real(), media)` installs what is missing and returns a `serve.Server` with `url`,
`media` (the folder below which `file://` may read), `model`, `pid` and `log`; `serve.stop(server)` ends it.
`serve.simulator()` in place of `serve.real()` starts the simulator with the same command line.

In tests ask for the fixture `engine` of tests/engine/conftest.py: it is the simulator, or with S1VL_TEST_ENGINE=vllm
the real one, or with VLLM_URL and VLLM_MEDIA one that runs already.
"""

from __future__ import annotations

from typing import Any

THINK_END_ID = 4095
"""The tiny model's token `</think>`, the last of its vocabulary."""


def scripted(text: str) -> dict[str, Any]:
    """Fields of a chat request that make the model say exactly `text`: thinking, `</think>`, content.

    The bias is towards `</think>` as one token. Without it the model often spells it in pieces, and a stream, which is
    split by token, then has everything as reasoning. The simulator understands the same fields.
    """
    return {"structured_outputs": {"choice": [text]}, "logit_bias": {str(THINK_END_ID): 100}}
