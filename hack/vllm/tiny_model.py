"""Writes a Qwen3-VL of two layers without weights: `python tiny_model.py FOLDER`, with the Python that has vLLM.

Everything that HTTP shows is as in the published Qwen3-VL-Thinking models: pixel limits, patch sizes, special tokens,
splitting of text, chat template. Only width, depth and vocabulary are tiny; vLLM makes up weights for them
(`--load-format dummy`). The same versions of Python and tokenizers give the same files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from pydoc_data import topics
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 4096
CONTEXT = 262_144
WIDTH = 128
HEADS = 4
HEAD_WIDTH = 32  # the least that vLLM's attention on a CPU takes
ROTARY_SECTIONS = (6, 5, 5)  # of time, height and width; together half of HEAD_WIDTH
LEAST_PIXELS = 65_536
MOST_PIXELS = 16_777_216

# Published with Qwen2 and unchanged since: contractions, words, single digits, punctuation, white space.
WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
# In the order of Qwen3, at the end of the vocabulary. Special ones are left out of decoded text.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")


def tokenizer() -> Tokenizer:
    """A byte-level BPE trained on the help texts that come with Python; any text survives a round trip."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(PLAIN),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((text for _, text in sorted(topics.topics.items())), trainer)
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN])
    if made.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the tokenizer has {made.get_vocab_size()} tokens instead of {VOCABULARY}")
    return made


def token_id(token: str) -> int:
    """The number of a token of SPECIAL or PLAIN."""
    return VOCABULARY - len(SPECIAL) - len(PLAIN) + (*SPECIAL, *PLAIN).index(token)


def config() -> dict[str, Any]:
    """`config.json`: about two million parameters."""
    text = {
        "model_type": "qwen3_vl_text",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "head_dim": HEAD_WIDTH,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000,
            "mrope_interleaved": True,
            "mrope_section": ROTARY_SECTIONS,
        },
        "bos_token_id": token_id("<|endoftext|>"),
        "eos_token_id": token_id("<|im_end|>"),
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": 2,
        "hidden_size": WIDTH // 2,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "in_channels": 3,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [0, 1],
        "hidden_act": "gelu_pytorch_tanh",
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "dtype": "float32",
        "tie_word_embeddings": False,
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "text_config": text,
        "vision_config": vision,
    }


def processor(kind: str, name: str, least: int, most: int) -> dict[str, Any]:
    """The preprocessing of pictures or videos; `least` and `most` bound the pixels of one of them."""
    return {
        "processor_class": "Qwen3VLProcessor",
        kind: name,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": least, "longest_edge": most},
    }


def files() -> dict[str, dict[str, Any]]:
    """The JSON files of the model's folder but for the tokenizer itself."""
    return {
        "config.json": config(),
        "generation_config.json": {
            "bos_token_id": token_id("<|endoftext|>"),
            "pad_token_id": token_id("<|endoftext|>"),
            "eos_token_id": [token_id("<|im_end|>"), token_id("<|endoftext|>")],
            "do_sample": True,
            "temperature": 0.8,
            "top_k": 20,
            "top_p": 0.95,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen3VLProcessor",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "additional_special_tokens": SPECIAL[1:],
            "add_prefix_space": False,
            "model_max_length": CONTEXT,
        },
        "preprocessor_config.json": processor(
            "image_processor_type", "Qwen2VLImageProcessorFast", LEAST_PIXELS, MOST_PIXELS
        ),
        "video_preprocessor_config.json": processor("video_processor_type", "Qwen3VLVideoProcessor", 4_096, 25_165_824),
    }


def write(folder: Path) -> None:
    """Write all files of the model into an existing folder."""
    tokenizer().save(str(folder / "tokenizer.json"))
    template = Path(__file__).with_name("chat_template.jinja")
    (folder / template.name).write_text(template.read_text())
    for name, content in files().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
