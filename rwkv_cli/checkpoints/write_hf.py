"""Gives tensors the names and shapes of Hugging Face transformers; knows no files.

RWKV-4: `RwkvForCausalLM` (its convert_rwkv_checkpoint_to_hf.py). RWKV-7: `Rwkv7ForCausalLM`, which
keeps BlinkDL's names behind a prefix (its convert_rwkv7_checkpoint_to_hf.py).
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

from rwkv_cli.checkpoints.tensors import RawTensor

_V4 = (
    (r"^emb\.", "embeddings."),
    (r"^(blocks\.\d+)\.ln0\.", r"\1.pre_ln."),
    (r"^(blocks\.\d+)\.att\.", r"\1.attention."),
    (r"^(blocks\.\d+)\.ffn\.", r"\1.feed_forward."),
    (r"\.time_mix_k$", ".time_mix_key"),
    (r"\.time_mix_v$", ".time_mix_value"),
    (r"\.time_mix_r$", ".time_mix_receptance"),
)
_ALONG = {  # vectors that lie along the last of three axes there
    "v4": re.compile(r"\.time_mix_[kvr]$"),
    "v7": re.compile(r"\.(x_[rwkvag]|[wav]0|k_k|k_a)$"),
}
_FLAT = re.compile(r"\.time_(decay|first)$")
_PREFIX = {"v4": "rwkv.", "v7": "rwkv7."}

VERSIONS = tuple(_PREFIX)


def for_transformers(tensor: RawTensor, version: str) -> RawTensor:
    """The same numbers as transformers names and shapes them.

    Args:
        tensor: Under BlinkDL's name.
        version: One of `VERSIONS`.
    """
    name, shape = tensor.name, tensor.shape
    if _ALONG[version].search(name):
        shape = (1, 1, prod(shape))
    elif version == "v4" and _FLAT.search(name):
        shape = (prod(shape),)
    if version == "v4":
        for pattern, replacement in _V4:
            name = re.sub(pattern, replacement, name)
    if not name.startswith("head."):
        name = _PREFIX[version] + name
    return replace(tensor, name=name, shape=shape)
