"""Writes models as GGUF files and as rwkv.cpp's .bin files, by what their converters do to a
checkpoint; the containers of GGUF are written by the package `gguf`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from oracle.weights import Shape, Tensors

Kinds = Mapping[str, str]

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
_PLAIN = {"F32": "<f4", "F16": "<f2"}
_BIN_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 7, "Q5_1": 8, "Q8_0": 9}
# Where the halves of a block are that scale its numbers.
_SCALES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


@dataclass(frozen=True)
class Stored:
    """A tensor as bytes of some type; `shape` counts its numbers, outermost dimension first."""

    kind: str
    shape: tuple[int, ...]
    data: np.ndarray


def coded(values: np.ndarray, kind: str) -> Stored:
    """Store numbers as a type of ggml.

    There is no Python code that makes K blocks: those are drawn at random, as any would do.
    """
    if kind in _PLAIN:
        return Stored(kind, values.shape, np.ascontiguousarray(values, _PLAIN[kind]))
    if kind == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4") >> 16
        return Stored(kind, values.shape, bits.astype("<u2"))
    number = gguf.GGMLQuantizationType[kind]
    if kind not in _SCALES:
        return Stored(kind, values.shape, quantize(values.astype(np.float32), number))
    return Stored(kind, values.shape, _random_blocks(values, kind))


def decoded(stored: Stored) -> np.ndarray:
    """Give the float32 numbers that bytes stand for, by the package's own code."""
    if stored.kind in _PLAIN:
        return stored.data.astype(np.float32)
    if stored.kind == "BF16":
        return (stored.data.astype("<u4") << 16).view("<f4")
    number = gguf.GGMLQuantizationType[stored.kind]
    return dequantize(stored.data, number).astype(np.float32).reshape(stored.shape)


def _random_blocks(values: np.ndarray, kind: str) -> np.ndarray:
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(values.size)
    rows = values.shape[:-1]
    blocks = rng.integers(0, 256, (*rows, values.shape[-1] // weights, nbytes), dtype=np.uint8)
    spread = 0.002 / np.sqrt(values.shape[-1])
    for at in _SCALES[kind]:
        scale = rng.uniform(0.5, 1.5, blocks.shape[:-1]) * spread
        blocks[..., at : at + 2] = scale.astype("<f2")[..., None].view(np.uint8)
    return blocks.reshape(*rows, -1)


@dataclass
class GgufModel:
    """A model in GGUF's terms.

    Attributes:
        metadata: Key to value.
        tensors: Name to bytes.
        original: What the bytes stand for, as a checkpoint of BlinkDL has it.
    """

    metadata: dict[str, str | int | float] = field(default_factory=dict)
    tensors: dict[str, Stored] = field(default_factory=dict)
    original: Tensors = field(default_factory=dict)


_ENDS = {
    "emb.weight": "token_embd.weight",
    "blocks.0.ln0.weight": "token_embd_norm.weight",
    "blocks.0.ln0.bias": "token_embd_norm.bias",
    "ln_out.weight": "output_norm.weight",
    "ln_out.bias": "output_norm.bias",
    "head.weight": "output.weight",
}
_PARTS = {
    "ln1": "attn_norm", "ln2": "attn_norm_2", "att.ln_x": "time_mix_ln",
    "att.receptance": "time_mix_receptance", "att.key": "time_mix_key",
    "att.value": "time_mix_value", "att.output": "time_mix_output", "att.gate": "time_mix_gate",
    "ffn.key": "channel_mix_key", "ffn.value": "channel_mix_value",
    "ffn.receptance": "channel_mix_receptance",
    "att.time_maa_w1": "time_mix_w1", "att.time_maa_w2": "time_mix_w2",
    "att.time_maa_x": "time_mix_lerp_x", "att.time_decay": "time_mix_decay",
    "att.time_decay_w1": "time_mix_decay_w1", "att.time_decay_w2": "time_mix_decay_w2",
    "att.time_faaaa": "time_mix_first",
    "ffn.time_maa_k": "channel_mix_lerp_k", "ffn.time_maa_r": "channel_mix_lerp_r",
    "ffn.x_k": "channel_mix_lerp_k",
}  # fmt: skip
_ORDER = {"v6": ("att.time_maa_", "wkvrg"), "v7": ("att.x_", "rwkvag")}


def gguf_model(
    tensors: Tensors, version: str, shape: Shape, kind: str, rescale_every: int = 0
) -> GgufModel:
    """Convert a checkpoint as llama.cpp does: matrices of one type, all else in float32."""
    arch = {"v6": "rwkv6", "v7": "rwkv7"}[version]
    made = GgufModel(_gguf_metadata(arch, shape, rescale_every))
    prefix, order = _ORDER[version]
    for name, value in tensors.items():
        layer, part = _split(name)
        if part.startswith(prefix) and part.removeprefix(prefix) in order:
            made.original[name] = value
            if part.endswith(order[0]):
                block = f"blocks.{layer}.{prefix}"
                joined = np.stack([tensors[block + mix].reshape(1, 1, -1) for mix in order])
                fused = f"blk.{layer}.time_mix_lerp_fused.weight"
                made.tensors[fused] = coded(joined, "F32")
            continue
        if layer == 0 and part in ("att.v0", "att.v1", "att.v2"):
            continue  # the converter writes copies of a0 to a2, below
        _convert(made, name, value, kind, 2.0 ** -(layer // rescale_every) if rescale_every else 1)
    if version == "v7":
        for number in "012":
            copy = made.tensors[f"blk.0.time_mix_a{number}.weight"]
            made.tensors[f"blk.0.time_mix_v{number}.weight"] = copy
    return made


def _convert(made: GgufModel, name: str, value: np.ndarray, kind: str, scale: float) -> None:
    layer, part = _split(name)
    is_matrix = part.endswith(".weight") and value.ndim == 2
    scaled = value * scale if part in ("att.output.weight", "ffn.value.weight") else value
    stored = coded(_gguf_layout(part, scaled), kind if is_matrix else "F32")
    made.tensors[_gguf_name(name, layer, part)] = stored
    if is_matrix:
        value = decoded(stored) / (scale if scaled is not value else 1)
    made.original[name] = value


def _split(name: str) -> tuple[int, str]:
    """Split a name into layer and the rest: -1 outside the layers."""
    if name in _ENDS:
        return -1, name
    _, layer, part = name.split(".", 2)
    return int(layer), part


def _gguf_name(name: str, layer: int, part: str) -> str:
    if name in _ENDS:
        return _ENDS[name]
    stem, dot, end = part.rpartition(".")
    if end not in ("weight", "bias"):
        stem, end = part, "weight"
    stem = _PARTS.get(stem) or "time_mix_" + stem.removeprefix("att.")
    return f"blk.{layer}.{stem}.{end}"


def _gguf_layout(part: str, value: np.ndarray) -> np.ndarray:
    if part.endswith("time_maa_w2"):
        return value.transpose(0, 2, 1)
    if part.removeprefix("att.") in _LOW or part.endswith(("maa_w1", "decay_w1", "decay_w2")):
        return value.T
    if part == "att.r_k":
        return value.reshape(-1)
    return value if part.endswith("weight") or part == "att.time_faaaa" else value.squeeze()


_LOW = {f"{low}{end}" for low in "wavg" for end in "12"}


def _gguf_metadata(arch: str, shape: Shape, rescale_every: int) -> dict[str, str | int | float]:
    return {
        f"{arch}.context_length": 1_048_576,
        f"{arch}.embedding_length": shape.width,
        f"{arch}.block_count": shape.layers,
        f"{arch}.feed_forward_length": shape.ffn,
        f"{arch}.attention.layer_norm_epsilon": 1e-5,
        f"{arch}.attention.head_count": 0,
        f"{arch}.rescale_every_n_layers": rescale_every,
        f"{arch}.wkv.head_size": shape.size,
        "general.architecture": arch,
        "general.name": "a random model",
    }


def write_gguf(model: GgufModel, path: Path) -> Path:
    """Write a GGUF file, with a vocabulary like that of a real one."""
    metadata = dict(model.metadata)
    writer = gguf.GGUFWriter(path, str(metadata.pop("general.architecture")))
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(["<s>", "\\x00", "\\xff", "日"])
    writer.add_token_types([3, 1, 1, 1])
    for name, stored in model.tensors.items():
        number = gguf.GGMLQuantizationType[stored.kind]
        writer.add_tensor(name, stored.data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_bin(tensors: Tensors, version: str, path: Path, kind: str = "F32") -> Tensors:
    """Write rwkv.cpp's own format; give what its numbers stand for."""
    original, out = {}, bytearray()
    layers = sum(name.endswith(".ln1.weight") for name in tensors)
    emb = tensors["emb.weight"]
    out += struct.pack("<6i", 0x67676D66, 101, *emb.shape, layers, _BIN_TYPES[kind])
    for name, value in _joined(tensors).items():
        _, part = _split(name)
        laid = _bin_layout(part, value, version, tensors)
        quantized = laid.ndim == 2 and name not in ("emb.weight", "head.weight")
        quantized = quantized and part.endswith(".weight")
        stored = coded(laid, kind if quantized else "F32")
        out += struct.pack("<3i", laid.ndim, len(name), _BIN_TYPES[stored.kind])
        out += struct.pack(f"<{laid.ndim}i", *reversed(laid.shape))
        out += name.encode() + stored.data.tobytes()
        original[name] = decoded(stored) if quantized else value
    path.write_bytes(out)
    return {name: original.get(name, value) for name, value in tensors.items()}


def _joined(tensors: Tensors) -> Tensors:
    """The six mixes of RWKV-7 as one tensor, where the first of them was."""
    joined: Tensors = {}
    for name, value in tensors.items():
        block, mix, _ = name.partition(".att.x_")
        if not mix:
            joined[name] = value
        elif f"{block}.att.x_rwkvag" not in joined:
            parts = [tensors[f"{block}.att.x_{letter}"].reshape(1, 1, -1) for letter in "rwkvag"]
            joined[f"{block}.att.x_rwkvag"] = np.concatenate(parts)
    return joined


def _bin_layout(part: str, value: np.ndarray, version: str, tensors: Tensors) -> np.ndarray:
    value = value.squeeze() if ".time_" in part else value
    if version == "v7":
        return value.T if part.removeprefix("att.") in _LOW else value
    if part == "att.time_faaaa":
        return value[..., None]
    if version == "v6":
        if part == "att.time_decay":
            heads = tensors["blocks.0.att.time_faaaa"].shape[0]
            return value.reshape(heads, -1, 1)
        turns = part.endswith(("maa_w1", "maa_w2", "decay_w1", "decay_w2"))
        return value.swapaxes(-1, -2) if turns else value
    if part == "att.time_decay":
        if version == "v4":
            return -np.exp(value)
        decay = np.exp(-np.exp(value))
        return decay.reshape(-1, 1, 1) if version == "v5.0" else decay[..., None]
    if part == "att.time_first" and version != "v4":
        return np.exp(value).reshape(-1, 1, 1)
    return value
