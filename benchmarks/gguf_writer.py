"""Write RWKV-6 and RWKV-7 models as GGUF for llama.cpp, as its own converter does.

`python benchmarks/gguf_writer.py MODEL OUT.gguf [--type F16] [--llama-bin DIR]`

Needs the package `gguf`; for types other than F32, F16 and BF16 also llama.cpp's `llama-quantize`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import bf16

from rwkv_cli.arch.spec import Dims
from rwkv_cli.checkpoints.tensors import Checkpoint
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.text.registry import load_tokenizer

FLOATS = ("F32", "F16", "BF16")

# What llama.cpp calls the parts of a layer.
_COMMON = {
    "ln1": "attn_norm",
    "ln2": "attn_norm_2",
    "att.receptance": "time_mix_receptance",
    "att.key": "time_mix_key",
    "att.value": "time_mix_value",
    "att.output": "time_mix_output",
    "att.gate": "time_mix_gate",
    "att.ln_x": "time_mix_ln",
    "ffn.key": "channel_mix_key",
    "ffn.value": "channel_mix_value",
    "ffn.receptance": "channel_mix_receptance",
}
_V6 = {
    "att.time_maa_x": "time_mix_lerp_x",
    "att.time_maa_w1": "time_mix_w1",
    "att.time_maa_w2": "time_mix_w2",
    "att.time_decay": "time_mix_decay",
    "att.time_decay_w1": "time_mix_decay_w1",
    "att.time_decay_w2": "time_mix_decay_w2",
    "att.time_faaaa": "time_mix_first",
    "ffn.time_maa_k": "channel_mix_lerp_k",
    "ffn.time_maa_r": "channel_mix_lerp_r",
}
_V7 = {
    **{f"att.{x}{n}": f"time_mix_{x}{n}" for x in "wavg" for n in "012" if x + n != "g0"},
    "att.k_k": "time_mix_k_k",
    "att.k_a": "time_mix_k_a",
    "att.r_k": "time_mix_r_k",
    "ffn.x_k": "channel_mix_lerp_k",
}
_LERPS = {
    "v6": [f"att.time_maa_{x}" for x in "wkvrg"],
    "v7": [f"att.x_{x}" for x in "rwkvag"],
}
_LOW = tuple(x + n for x in "wavg" for n in "12")  # low ranks, stored the other way round
# Kept in float32 by llama.cpp's converter, beside vectors.
_FULL = ("_w1", "_w2", "lerp_fused", "time_mix_first")


def write_gguf(model: Path, target: Path, kind: str, llama_bin: Path | None = None) -> None:
    """Write a model in a type; the quantized ones are made of F16, which stays beside them."""
    if kind in FLOATS:
        temporary = target.with_suffix(".part")
        _write_float(model, temporary, kind)
        temporary.replace(target)
        return
    if llama_bin is None:
        sys.exit(f"{kind} needs llama.cpp's llama-quantize: --llama-bin DIR")
    source = target.with_name(target.name.replace(kind, "F16"))
    if not source.exists():
        write_gguf(model, source, "F16")
    temporary = target.with_suffix(".part.gguf")
    command = [str(llama_bin / "llama-quantize"), str(source), str(temporary), kind, "2"]
    subprocess.run(command, check=True, capture_output=True)
    temporary.replace(target)


def _write_float(model: Path, target: Path, kind: str) -> None:
    try:
        import gguf
    except ImportError:
        sys.exit("writing GGUF needs the package gguf: pip install gguf")
    file = open_model(model)
    version = file.arch.name
    if version not in _LERPS:
        sys.exit(f"{model}: llama.cpp runs RWKV-6 and RWKV-7, this is {version}")
    writer = gguf.GGUFWriter(target, "rwkv" + version[1:])
    _describe(writer, file.checkpoint, version, file.dims)
    _vocabulary(writer, gguf.TokenType, file.dims.vocab)
    types = gguf.GGMLQuantizationType
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
    plan = [(name, parts, _kind(name, shape, kind)) for name, parts, shape in _plan(file)]
    for name, parts, stored in plan:
        array = _array(file.checkpoint, parts, stored)
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes, types[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, parts, stored in plan:
        writer.write_tensor_data(_array(file.checkpoint, parts, stored))
        for part in parts:
            file.checkpoint.release(file.checkpoint.tensors[part])
    writer.close()


def _describe(writer: Any, checkpoint: Checkpoint, version: str, dims: Dims) -> None:
    size = dims.letters["N"]
    writer.add_context_length(1_048_576)
    writer.add_embedding_length(dims.width)
    writer.add_block_count(dims.layers)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(size)
    writer.add_feed_forward_length(dims.letters["F"])
    writer.add_head_count(0)
    ranks = {
        x: checkpoint.tensors[f"blocks.1.att.{x}1"].shape[1]
        for x in ("w", "a", "v", "g")
        if version == "v7"
    }
    if version == "v7":
        writer.add_decay_lora_rank(ranks["w"])
        writer.add_iclr_lora_rank(ranks["a"])
        writer.add_value_residual_mix_lora_rank(ranks["v"])
        writer.add_gate_lora_rank(ranks["g"])
    else:
        writer.add_rescale_every_n_layers(0)
        writer.add_time_mix_extra_dim(checkpoint.tensors["blocks.0.att.time_maa_w2"].shape[1])
        writer.add_time_decay_extra_dim(checkpoint.tensors["blocks.0.att.time_decay_w2"].shape[0])


def _vocabulary(writer: Any, types: Any, size: int) -> None:
    """Write the World vocabulary; what it holds is escaped as Python writes bytes."""
    words = load_tokenizer("world", near=Path())
    tokens, kinds = [b"<s>"], [types.CONTROL]
    for token in range(1, size):
        text = words.token_bytes(token)
        tokens.append(repr(text)[2:-1].encode() if text else f"[PAD{token}]".encode())
        kinds.append(types.NORMAL if text else types.UNUSED)
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(261)


def _plan(file: Any) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """Give llama.cpp's tensors: name, the tensors each is made of, the shape of these."""
    tensors = file.checkpoint.tensors
    yield "token_embd.weight", ["emb.weight"], tensors["emb.weight"].shape
    for end in ("weight", "bias"):
        yield f"token_embd_norm.{end}", [f"blocks.0.ln0.{end}"], ()
        yield f"output_norm.{end}", [f"ln_out.{end}"], ()
    yield "output.weight", ["head.weight"], tensors["head.weight"].shape
    version = file.arch.name
    names = {**_COMMON, **(_V6 if version == "v6" else _V7)}
    for layer in range(file.dims.layers):
        b = f"blocks.{layer}."
        lerps = [b + x for x in _LERPS[version]]
        yield f"blk.{layer}.time_mix_lerp_fused.weight", lerps, ()
        for ours, theirs in names.items():
            for end in ("", ".weight", ".bias"):
                source = b + ours + end
                # llama.cpp wants value-residual tensors in the first layer and never reads them.
                if layer == 0 and source not in tensors:
                    source = source.replace("att.v", "att.a")
                if source in tensors:
                    name = f"blk.{layer}.{theirs}{end or '.weight'}"
                    yield name, [source], tensors[source].shape


def _kind(name: str, shape: tuple[int, ...], kind: str) -> str:
    is_matrix = sum(size > 1 for size in shape) > 1 and "r_k" not in name
    full = name.removesuffix(".weight").endswith(_FULL)
    return kind if is_matrix and not full else "F32"


def _array(checkpoint: Checkpoint, parts: list[str], stored: str) -> np.ndarray:
    """Values of one of llama.cpp's tensors as they are stored; BF16 as uint16."""
    arrays = [_float(checkpoint, part) for part in parts]
    if len(arrays) > 1:
        array = np.stack([a.reshape(1, 1, -1) for a in arrays])
    else:
        array = arrays[0]
        if "att.time_maa_w2" in parts[0]:
            array = array.transpose(0, 2, 1)
        elif parts[0].endswith(("_w1", "_w2")) or parts[0][-2:] in _LOW:
            array = array.T
        elif parts[0].endswith(".r_k"):
            array = array.reshape(-1)
        elif 1 in array.shape:
            array = array.squeeze()
    if stored == "F16":
        return np.ascontiguousarray(array, np.float16)
    array = np.ascontiguousarray(array, np.float32)
    return bf16(array) if stored == "BF16" else array


def _float(checkpoint: Checkpoint, name: str) -> np.ndarray:
    raw = checkpoint.tensors[name]
    if raw.dtype == "BF16":
        bits = np.frombuffer(raw.data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(raw.shape)
    types = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    return np.frombuffer(raw.data, types[raw.dtype]).reshape(raw.shape).astype(np.float32)


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", default="F16", help="F32, F16, BF16, or one of llama-quantize")
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's programs")
    args = parser.parse_args()
    write_gguf(args.model, args.out, args.type, args.llama_bin)


if __name__ == "__main__":
    main()
