"""What stands beside the weights in a folder of Hugging Face transformers: its config, as told by
a model's sizes, and its tokenizer.
"""

from __future__ import annotations

import re
from pathlib import Path

from rwkv_cli.checkpoints.write_hf import VERSIONS
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.errors import UsageError
from rwkv_cli.text.bpe import find_20b

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
FILES = frozenset({WEIGHTS, CONFIG, TOKENIZER, TOKENIZER_CONFIG})

_CONTEXT = re.compile(r"ctx-?([0-9]{3,7})")
_USUAL_CONTEXT = {"v4": 1024, "v7": 8192}
_USUAL_RANK = 32  # of a model of one layer, which has no value residual
_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
_END = "<|endoftext|>"


def check_convertible(file: ModelFile) -> None:
    """Check that transformers has a class for a model.

    Raises:
        UsageError: It has none.
    """
    if file.arch.name not in VERSIONS:
        raise UsageError(
            f"transformers has classes for RWKV-4 and 7, not for {file.arch.title}",
            hint="--to safetensors writes the same weights in one file",
        )
    if any(name.endswith(".time_state") for name in file.checkpoint.tensors):
        raise UsageError(
            f"{file.checkpoint.path}: has a tuned initial state, which transformers has not",
            hint="--to safetensors keeps it",
        )


def config_of(file: ModelFile, dtype: str) -> dict[str, object]:
    """Give the content of config.json.

    Args:
        file: A model that `check_convertible` let pass.
        dtype: Type of the matrices that are written, such as "BF16".
    """
    dims, version = file.dims, file.arch.name
    told = _CONTEXT.search(file.checkpoint.path.name)
    context = int(told[1]) if told else _USUAL_CONTEXT[version]
    common: dict[str, object] = {
        "vocab_size": dims.vocab,
        "hidden_size": dims.width,
        "num_hidden_layers": dims.layers,
        "intermediate_size": dims.letters["F"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    if version == "v4":
        return {
            "architectures": ["RwkvForCausalLM"],
            "model_type": "rwkv",
            **common,
            "attention_hidden_size": dims.letters["A"],
            "context_length": context,
            "layer_norm_epsilon": 1e-5,
            "rescale_every": 6,
            "torch_dtype": _TYPES[dtype],
        }
    return {
        "architectures": ["Rwkv7ForCausalLM"],
        "model_type": "rwkv7",
        **common,
        "head_dim": dims.letters["N"],
        "num_heads": dims.letters["H"],
        "decay_low_rank_dim": dims.letters["Dw"],
        "a_low_rank_dim": dims.letters["Da"],
        "v_low_rank_dim": dims.letters.get("Dv", _USUAL_RANK),
        "gate_low_rank_dim": dims.letters["Dg"],
        "max_position_embeddings": context,
        "norm_eps": 1e-5,
        "norm_bias": True,
        "pad_token_id": 0,
        "dtype": _TYPES[dtype],
    }


def tokenizer_file(file: ModelFile) -> Path | None:
    """Find the tokenizer's file that can go along; only the 20B tokenizer has one."""
    return find_20b(file.folder) if file.tokenizer == "20b" else None


def tokenizer_config() -> dict[str, object]:
    """Give the content of tokenizer_config.json for the 20B tokenizer."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _END,
        "eos_token": _END,
        "unk_token": _END,
    }
