"""What a token costs by the sizes of a model: the weights it touches, the operations it needs."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims

# Bytes of a weight; those of 8 and 4 bits with their share of a 16-bit scale for every 32.
WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32}


def dtype_of(numerics: str) -> str | None:
    """Tell the precision of the weights from an engine's name for its arithmetic."""
    return next((word for word in reversed(numerics.split()) if word in WEIGHT_BYTES), None)


def touched_bytes(arch: Arch, dims: Dims, dtype: str) -> float:
    """Count the bytes of weights that one decoded token touches, none skipped: all matrices but
    the embedding, the head included. At 4 bits, head and low ranks keep 8.
    """
    total = 0.0
    for name, axes, count in _matrices(arch, dims):
        is_fine = dtype == "int4" and (name == "head.weight" or _is_low_rank(axes))
        total += count * WEIGHT_BYTES["int8" if is_fine else dtype]
    return total


def prefill_operations(arch: Arch, dims: Dims) -> float:
    """Count the operations of matrix products for a token of a prompt, whose logits nobody wants:
    two a weight, the head's left out.
    """
    return 2.0 * sum(n for name, _, n in _matrices(arch, dims) if name != "head.weight")


def _matrices(arch: Arch, dims: Dims) -> Iterator[tuple[str, str, int]]:
    """List the matrices a token is multiplied with: name, axes, weights in all layers."""
    head = GLOBAL_PARAMS["head.weight"]
    yield "head.weight", head, prod(dims.shape(head))
    for name, axes in arch.params.items():
        # What has heads is a vector folded by head, or a state to begin with.
        if len(axes.split()) > 1 and "H" not in axes.split():
            # What may be absent is the value residual, which the first layer does not have.
            layers = dims.layers - name.startswith("?")
            yield name, axes, layers * prod(dims.shape(axes))


def _is_low_rank(axes: str) -> bool:
    return any(axis[0] in "DM" for axis in axes.split())
