"""From the tensors of a GGUF file to those of a BlinkDL checkpoint; knows names, not files.

Each rule undoes a line of conversion/rwkv.py of llama.cpp: it transposes low-rank matrices, joins
the token-shift mixes, flattens r_k, divides outputs every few layers (RWKV-6), and gives the first
layer of RWKV-7 a value residual that is a copy of something else, since none is used there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from rwkv_cli.checkpoints.buffers import computed, renamed, reshaped, row, transposed
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import Contents, RawTensor, printable

Metadata = Mapping[str, str | int | float | bool | None]

_ENDS = {
    "token_embd": "emb",
    "token_embd_norm": "blocks.0.ln0",
    "output_norm": "ln_out",
    "output": "head",
}
# Without ".weight" and ".bias".
_COMMON = {
    "attn_norm": "ln1",
    "attn_norm_2": "ln2",
    "time_mix_ln": "att.ln_x",
    **{f"time_mix_{one}": f"att.{one}" for one in ("receptance", "key", "value", "output", "gate")},
    **{f"channel_mix_{one}": f"ffn.{one}" for one in ("receptance", "key", "value")},
}
# These have ".weight" in GGUF and none in a checkpoint.
_V6 = {
    "time_mix_first": "att.time_faaaa",
    "time_mix_decay": "att.time_decay",
    "time_mix_decay_w1": "att.time_decay_w1",
    "time_mix_decay_w2": "att.time_decay_w2",
    "time_mix_w1": "att.time_maa_w1",
    "time_mix_w2": "att.time_maa_w2",
    **{f"time_mix_lerp_{mix}": f"att.time_maa_{mix}" for mix in "xwkvrg"},
    "channel_mix_lerp_k": "ffn.time_maa_k",
    "channel_mix_lerp_r": "ffn.time_maa_r",
}
_LOW = [f"{low}{end}" for low in "wavg" for end in "012" if low + end != "g0"]
_V7 = {
    **{f"time_mix_{one}": f"att.{one}" for one in (*_LOW, "k_k", "k_a", "r_k")},
    "channel_mix_lerp_k": "ffn.x_k",
}
_FUSED = "time_mix_lerp_fused"
_MIXES = {"rwkv6": ("att.time_maa_", "wkvrg"), "rwkv7": ("att.x_", "rwkvag")}
_LOW_RANK = re.compile(r"att\.(?:time_maa_w[12]|time_decay_w[12]|[wavg][12])")
_UNUSED = ("att.v0", "att.v1", "att.v2")  # of the first layer
_TITLES = {"rwkv6qwen2": "RWKV-6 distilled from Qwen", "arwkv7": "RWKV-7 distilled from Qwen"}
_EPSILON = 1e-5
_WORLD_TOKENS = 65_529
_NOTES = ("general.architecture", "general.name", "general.file_type")


@dataclass(frozen=True, slots=True)
class _Header:
    """What the metadata say of the model."""

    arch: str
    rescaled_every: int
    head_size: int


def restore(tensors: list[RawTensor], metadata: Metadata, source: Source) -> Contents:
    """The tensors under their original names, shapes and values, and notes on the model.

    Raises:
        RefusedError: It is no RWKV-6 or 7, or metadata and tensors contradict each other.
    """
    header = _header(metadata, source)
    restored: list[RawTensor] = []
    for tensor in tensors:
        restored += _restored(tensor, header, source)
    _check_sizes(restored, metadata, header, source)
    notes = {key: str(metadata[key])[:200] for key in _NOTES if key in metadata}
    rows = next((tensor.shape[0] for tensor in restored if tensor.name == "emb.weight"), 0)
    if metadata.get("tokenizer.ggml.model") == "rwkv" and rows >= _WORLD_TOKENS:
        notes["rwkv.tokenizer"] = "world"
    return Contents(restored, notes)


def _header(metadata: Metadata, source: Source) -> _Header:
    arch = metadata.get("general.architecture")
    if metadata.get("general.type", "model") != "model":
        kind = printable(str(metadata["general.type"]))
        raise source.refused(f"is a GGUF file, but no model: it holds: {kind}")
    if arch in _TITLES:
        raise source.refused(
            f"is an {_TITLES[arch]} ({arch}), another architecture; plain versions 6 and 7 run here"
        )
    if not isinstance(arch, str) or arch not in _MIXES:
        name = printable(arch) if isinstance(arch, str) else "none"
        raise source.refused(f"is a GGUF file of the architecture {name}, not RWKV-6 or 7")
    epsilon = metadata.get(f"{arch}.attention.layer_norm_epsilon", _EPSILON)
    if not isinstance(epsilon, float) or not abs(epsilon / _EPSILON - 1) <= 1e-3:
        said = printable(str(epsilon))
        raise source.refused(f"has a layer norm with an epsilon of {said}, not {_EPSILON}")
    every = _count(metadata, f"{arch}.rescale_every_n_layers", source) or 0
    head_size = _count(metadata, f"{arch}.wkv.head_size", source) or 0
    if head_size == 0:
        raise source.refused("does not say how large its heads are")
    return _Header(arch, every if arch == "rwkv6" else 0, head_size)


def _count(metadata: Metadata, key: str, source: Source) -> int | None:
    value = metadata.get(key)
    if value is None or (type(value) is int and 0 <= value <= 1 << 31):
        return value
    raise source.refused(f"is corrupt: {printable(key)} is {printable(str(value))}")


def _restored(tensor: RawTensor, header: _Header, source: Source) -> list[RawTensor]:
    stem, _, end = tensor.name.rpartition(".")
    if stem in _ENDS:
        return [renamed(tensor, f"{_ENDS[stem]}.{end}")]
    match = re.fullmatch(r"blk\.([0-9]{1,6})\.(\w+)", stem)
    if match is None:
        raise _unknown(tensor, source)
    layer, part = int(match[1]), match[2]
    if part == _FUSED:
        return _split_mixes(tensor, f"blocks.{layer}.", header.arch, source)
    if part in _COMMON:
        name = f"{_COMMON[part]}.{end}"
        scaled = _scaled_back(tensor, name, layer, header, source)
        return [renamed(scaled, f"blocks.{layer}.{name}")]
    table = _V6 if header.arch == "rwkv6" else _V7
    if part not in table or end != "weight":
        raise _unknown(tensor, source)
    name = table[part]
    if layer == 0 and name in _UNUSED:
        return []
    turned = _turned(renamed(tensor, f"blocks.{layer}.{name}"), name, header, source)
    return [turned]


def _turned(tensor: RawTensor, name: str, header: _Header, source: Source) -> RawTensor:
    """The tensor as a checkpoint has it: low-rank matrices the other way round, r_k by heads."""
    if _LOW_RANK.fullmatch(name):
        if len(tensor.shape) < 2:
            raise source.refused(f"is corrupt: {tensor.name} is no matrix")
        return transposed(tensor)
    if name == "att.r_k":
        heads, rest = divmod(prod(tensor.shape), header.head_size)
        if rest:
            raise source.refused(f"is corrupt: {tensor.name} is no whole number of heads")
        return reshaped(tensor, (heads, header.head_size))
    return tensor


def _split_mixes(tensor: RawTensor, block: str, arch: str, source: Source) -> list[RawTensor]:
    """(mixes, 1, 1, C) to as many vectors of C."""
    prefix, mixes = _MIXES[arch]
    if len(tensor.shape) < 2 or tensor.shape[0] != len(mixes):
        raise source.refused(f"is corrupt: {tensor.name} does not hold {len(mixes)} mixes")
    width = prod(tensor.shape[1:])
    return [
        renamed(reshaped(row(tensor, index), (width,)), f"{block}{prefix}{mix}")
        for index, mix in enumerate(mixes)
    ]


def _scaled_back(
    tensor: RawTensor, name: str, layer: int, header: _Header, source: Source
) -> RawTensor:
    """What was divided by 2 once more every few layers, multiplied again, which is exact."""
    if name not in ("att.output.weight", "ffn.value.weight") or not header.rescaled_every:
        return tensor
    power = layer // header.rescaled_every
    if power == 0:
        return tensor
    if power > 64:
        raise source.refused(f"is corrupt: {tensor.name} would be divided by 2 to the {power}")
    return computed(tensor, tensor.shape, lambda values: values * 2.0**power, tensor.dtype)


def _check_sizes(
    tensors: list[RawTensor], metadata: Metadata, header: _Header, source: Source
) -> None:
    """Compares what the metadata say with the tensors."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    layers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    found = {
        "block_count": len(layers),
        "embedding_length": shapes.get("emb.weight", (0,))[-1],
        "feed_forward_length": shapes.get("blocks.0.ffn.key.weight", (0,))[0],
    }
    for key, size in found.items():
        said = _count(metadata, f"{header.arch}.{key}", source)
        if said is not None and said != size:
            raise source.refused(f"is corrupt: its {key} is {said}, its tensors make it {size}")


def _unknown(tensor: RawTensor, source: Source) -> Exception:
    return source.refused(f"has a tensor that RWKV has not: {tensor.name}")
