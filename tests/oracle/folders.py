"""Writes models as folders of Hugging Face's transformers, and as the .st files of web-rwkv, by
what their converters do to a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from oracle.weights import Tensors

_LOW_RANKS = "wavg"


def transformers_names(tensors: Tensors, version: str) -> Tensors:
    """Rename as `RwkvForCausalLM` of transformers and its relatives of RWKV-5 and 6 do."""
    long = {"k": "key", "v": "value", "r": "receptance", "g": "gate"}
    renamed = {}
    for name, value in tensors.items():
        new = name.replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.")
        new = new.replace("emb.weight", "embeddings.weight").replace(".ln0.", ".pre_ln.")
        stem, mix, letter = new.partition("time_mix_")
        if mix:
            new = stem + mix + long[letter]
        renamed[new if new == "head.weight" else f"rwkv.{new}"] = value
    return renamed


def official_names(tensors: Tensors, version: str) -> Tensors:
    """Rename as `Rwkv7ForCausalLM` of transformers does."""
    return {n if n == "head.weight" else f"rwkv7.{n}": value for n, value in tensors.items()}


def fla_names(tensors: Tensors, version: str) -> Tensors:
    """Rename as RWKV-7 of flash-linear-attention does: low ranks are two linear layers there."""
    ends = {
        "emb.weight": "model.embeddings.weight",
        "ln_out.weight": "model.norm.weight",
        "ln_out.bias": "model.norm.bias",
        "head.weight": "lm_head.weight",
    }
    parts = {
        "ln0.": "pre_norm.", "ln1.": "attn_norm.", "ln2.": "ffn_norm.", "att.ln_x.": "attn.g_norm.",
        "att.receptance.": "attn.r_proj.", "att.key.": "attn.k_proj.",
        "att.value.": "attn.v_proj.", "att.output.": "attn.o_proj.", "att.": "attn.",
    }  # fmt: skip
    renamed = {}
    for name, value in tensors.items():
        if name in ends:
            renamed[ends[name]] = value
            continue
        _, layer, part = name.split(".", 2)
        if layer == "0" and part in ("att.v0", "att.v1", "att.v2"):
            continue
        block, low = f"model.layers.{layer}.", part.removeprefix("att.")
        if len(low) == 2 and low[0] in _LOW_RANKS and low[1] in "012":
            at, value = {
                "0": ("2.bias", value.reshape(-1)), "1": ("0.weight", value.T),
                "2": ("2.weight", value.T),
            }[low[1]]  # fmt: skip
            renamed[f"{block}attn.{low[0]}_lora.lora.{at}"] = value
            continue
        old = next((p for p in parts if part.startswith(p)), "")
        renamed[block + parts.get(old, "") + part.removeprefix(old)] = value
    return renamed


def st_names(tensors: Tensors, version: str) -> Tensors:
    """Rename and turn as convert_safetensors.py of web-rwkv and Ai00 does."""
    renamed = {}
    for name, value in tensors.items():
        new = name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")
        new = new.replace("lora_A", "lora.0").replace("lora_B", "lora.1").lower()
        if version == "v5.1" and ("time_decay" in name or "time_faaaa" in name):
            value = np.repeat(value[:, None], tensors["emb.weight"].shape[1] // len(value), axis=1)
        turned = ("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2", "time_state", "lora.0")
        renamed[new] = value.swapaxes(-1, -2) if any(t in new for t in turned) else value
    return renamed


def as_torch(tensors: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Make torch tensors of one precision."""
    made = {n: torch.from_numpy(np.ascontiguousarray(v)).to(dtype) for n, v in tensors.items()}
    return {name: tensor.contiguous() for name, tensor in made.items()}


def write_folder(
    tensors: Tensors,
    folder: Path,
    *,
    form: str = "safetensors",
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    **config: object,
) -> Path:
    """Write config.json and weights, `form` being "safetensors" or "bin"."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "rwkv", **config}))
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[form]
    weights = as_torch(tensors, dtype)
    if shards == 1:
        _save(weights, folder / f"{stem}.{suffix}")
        return folder
    names, where = list(weights), {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        part = {name: weights[name] for name in names[shard::shards]}
        where |= dict.fromkeys(part, file)
        _save(part, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(weights, path)
    else:
        save_file(weights, path)
