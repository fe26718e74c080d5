"""Whether the kernels compute on a card what torch computes there: a small random model of the
version, run by both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rwkv_cli.arch.detect import detect
from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, alternatives
from rwkv_cli.checkpoints.tensors import Checkpoint, RawTensor
from rwkv_cli.engine.cuda.device import Device
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.weights import DTYPES, load_weights
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.native_weights import prepared
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_weights import load_stack
from rwkv_cli.native.pack import unpack
from rwkv_cli.native.pool import Pool

_TOKENS, _CHUNKS = 41, (16, 4)  # two of the larger, two of the smaller, and one token
_HEADS, _LAYERS, _RANK, _VOCAB = 3, 2, 24, 320
# Of ||logits - torch's|| / ||torch's||: rounding leaves a tenth of it, a wrong kernel far more.
_BOUNDS = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison came to.

    Attributes:
        decodes: Whether the kernels for single tokens agree.
        reads: Whether those for many tokens at once do.
        why: What does not; None when all agree.
    """

    decodes: bool
    reads: bool
    why: str | None = None


def judge(device: Device, arch: Arch, size: int, dtype: str) -> Verdict:
    """Compare both kinds of kernels with torch.

    Args:
        device: The card with its kernels.
        arch: The version.
        size: Channels of a head.
        dtype: Precision of the matrices: a key of `weights.TYPES`.
    """
    file = random_model(arch, size)
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, _VOCAB, _TOKENS)]
    expected = _torch_logits(device, file, dtype, tokens)
    pool = None if dtype in DTYPES else Pool(1)
    off: dict[str, str] = {}
    for kind in ("decode", "prefill"):
        weights = load_weights(file, dtype, device.place, pool)
        engine = CudaEngine(device, weights, decodes=kind == "decode", reads=kind != "decode")
        engine.chunks = engine.chunks and _CHUNKS
        logits = engine.prefill(tokens, engine.zero_state())
        distance = float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))
        if not distance <= _BOUNDS.get(dtype, _BOUNDS["fp16"]):  # NaN is not, either
            off[kind] = f"{kind} by {distance:.2g}"
        elif kind == "decode" and not _rows_agree(engine):
            off[kind] = "the decode of batches"
    listed = " and ".join(off.values())
    why = f"the {arch.name} kernels disagree with torch in {listed}" if off else None
    return Verdict("decode" not in off, "prefill" not in off, why)


def _rows_agree(engine: CudaEngine) -> bool:
    """Tell whether the rows of every size of batch are those of single states, bit for bit."""
    states = [engine.zero_state() for _ in range(engine.batches[-1])]
    tokens = list(range(1, len(states) + 1))
    for token, state in zip(tokens, states, strict=True):
        engine.decode([token], [state])
    singles = [engine.decode([7], [state.clone()])[0] for state in states]
    return all(
        np.array_equal(row, single)
        for size in engine.batches
        for row, single in zip(
            engine.decode([7] * size, [state.clone() for state in states[:size]]),
            singles[:size],
            strict=True,
        )
    )


def _torch_logits(
    device: Device, file: ModelFile, dtype: str, tokens: list[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Give what torch computes with the very numbers that the kernels multiply with."""
    if dtype not in DTYPES:
        file, dtype = _unpacked(file, dtype), "fp32"
    stack = load_stack(file.checkpoint, file.arch, file.dims, dtype, str(device.place))
    engine = TorchEngine(stack, file.arch, file.dims, str(device.place))
    return engine.prefill(tokens, engine.zero_state())


def _unpacked(file: ModelFile, dtype: str) -> ModelFile:
    """Pack a model, and give what the codes stand for."""
    tensors = []
    for one in prepared(file, dtype, Pool(1)):
        place = one.place
        if place.role in ("vector", "state"):
            values = np.frombuffer(one.data, np.float32)
        else:
            values = unpack(one.data, one.dtype, place.layout, (place.rows, place.cols))
            values = values.T if place.transposed else values
        shape = file.checkpoint.tensors[place.name].shape
        tensors.append(_raw(place.name, shape, values))
    return replace(file, checkpoint=Checkpoint.in_memory(file.checkpoint.path, tensors))


def random_model(arch: Arch, size: int) -> ModelFile:
    """Draw a model of a version in float32, with heads of a size and numbers like trained ones."""
    rng = np.random.default_rng(0)
    tensors = [_raw(name, shape, _drawn(rng, name, shape)) for name, shape in _shapes(arch, size)]
    checkpoint = Checkpoint.in_memory(Path(f"random {arch.name}"), tensors)
    found, dims = detect({name: raw.shape for name, raw in checkpoint.tensors.items()})
    assert found.name == arch.name, found.name
    return ModelFile(checkpoint, found, dims, None, "none")


def _shapes(arch: Arch, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = _HEADS * size
    letters = {"C": width, "A": width, "H": _HEADS, "N": size, "F": 3 * width + 32, "V": _VOCAB}
    letters.update({"Dw": _RANK, "Da": _RANK, "Dv": 8, "Dg": 40, "Dm": 8, "M": 40})
    dims = Dims(_LAYERS, width, _VOCAB, letters)
    for name, axes in GLOBAL_PARAMS.items():
        yield name, dims.shape(axes)
    for layer in range(_LAYERS):
        for key, axes in arch.params.items():
            optional, names = alternatives(key)
            absent = names[0].endswith("time_state") or (layer == 0 and optional)
            if not absent:
                yield f"blocks.{layer}.{names[0]}", dims.shape(axes)


def _drawn(
    rng: np.random.Generator, name: str, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Draw a tensor by what its name says."""
    if len(shape) > 1 and "time_" not in name and "r_k" not in name:
        inputs = shape[-1] if name.endswith(".weight") else shape[-2]
        return rng.normal(0, 0.5 if name == "emb.weight" else inputs**-0.5, shape)
    if "ln" in name and name.endswith(".weight"):
        return rng.normal(1, 0.2, shape)
    if "time_mix" in name or "time_maa" in name or ".x_" in name:
        low_rank = name.endswith(("_w1", "_w2"))
        return rng.normal(0, 0.1, shape) if low_rank else rng.uniform(0, 1, shape)
    if "time_decay" in name and not name.endswith(("_w1", "_w2")):
        return rng.uniform(-5, 1, shape)
    return rng.normal(0, 0.1, shape)


def _raw(
    name: str, shape: tuple[int, ...], values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]
) -> RawTensor:
    data = bytearray(np.ascontiguousarray(values, np.float32).tobytes())
    return RawTensor(name, "F32", shape, memoryview(data))
