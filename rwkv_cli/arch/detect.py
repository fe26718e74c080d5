"""Names and shapes of a checkpoint's tensors in, version and sizes out; reads no weights and
imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, alternatives, get_arch
from rwkv_cli.errors import RefusedError

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")


def detect(shapes: Shapes) -> tuple[Arch, Dims]:
    """Tell which version of RWKV a checkpoint holds, and its sizes.

    Args:
        shapes: Name to shape of every tensor, under BlinkDL's names.

    Raises:
        RefusedError: It is not RWKV, or a version that this program does not run (named), or
            tensors are missing or have contradictory shapes.
    """
    for is_it, what in _FOREIGN:
        if is_it(shapes):
            raise RefusedError(what, hint=_HINTS.get(what))
    arch = get_arch(_version(shapes))
    return arch, _measure(arch, shapes)


def _version(shapes: Shapes) -> str:
    """Tell the version apart by the tensors that it alone has (as the reference package does)."""
    if "blocks.0.att.r_k" in shapes:
        return "v7"
    if any(".time_maa" in name for name in shapes):
        return "v6"
    if "blocks.0.att.ln_x.weight" not in shapes:
        return "v4"
    if "blocks.0.att.gate.weight" not in shapes:
        return "v5.0"
    decay = shapes.get("blocks.0.att.time_decay", ())
    return "v5.2" if len(decay) > 1 and decay[1] > 1 else "v5.1"


def _has(*patterns: str) -> Callable[[Shapes], bool]:
    """Build a test: does any tensor's name contain one of these?"""
    return lambda shapes: any(p in name for name in shapes for p in patterns)


def _only(pattern: str) -> Callable[[Shapes], bool]:
    """Build a test: do all names match this?"""
    return lambda shapes: bool(shapes) and all(re.search(pattern, name) for name in shapes)


def _is_v2(shapes: Shapes) -> bool:
    return "blocks.0.att.time_mix" in shapes


def _is_v3(shapes: Shapes) -> bool:
    decay = shapes.get("blocks.0.att.time_decay", ())
    return (
        len(decay) == 2
        and decay[1] == 1
        and "blocks.0.att.ln_x.weight" not in shapes
        and "blocks.0.att.time_mix_k" in shapes
    )


def _is_foreign(shapes: Shapes) -> bool:
    return "emb.weight" not in shapes or "blocks.0.att.key.weight" not in shapes


_TUNED = "this is a tuned initial state, not a model"
_LORA = "this holds LoRA weights, not a whole model"
_HINTS = {
    _TUNED: "rwkv state import FILE NAME -m MODEL, then --state NAME",
    _LORA: "-m the model it was trained on, --lora this file",
}

# In this order: the special names first, so that the sentence says the most that is known.
_FOREIGN: tuple[tuple[Callable[[Shapes], bool], str], ...] = (
    (_only(r"\.att\.time_state$"), _TUNED),
    (_has(".lora_A", ".lora_B", ".disha", ".bone"), _LORA),
    (_has("tok_emb.weight", ".time_alpha"), "this is an RWKV-1 model; versions 4 to 7 run here"),
    (_is_v2, "this is an RWKV-2 model; versions 4 to 7 run here"),
    (_is_v3, "this is an RWKV-3 model; versions 4 to 7 run here"),
    (
        _has(".tiny_q", ".tiny_k"),
        "this is an RWKV-4a model (with tiny attention); plain versions 4 to 7 run here",
    ),
    (
        _has("head_q.weight", "head_k.weight"),
        "this is an RWKV model with head-QK; plain versions 4 to 7 run here",
    ),
    (
        _has(".ffnPre."),
        "this is an RWKV-4 model with a leading channel-mixing; plain versions 4 to 7 run here",
    ),
    (_has(".ffn.enn."), "this is an RWKV-8 model; versions 4 to 7 run here"),
    (
        _has(".qkv.", ".qq.weight"),
        "this is an RWKV-7b model (DeepEmbed attention); plain versions 4 to 7 run here",
    ),
    (_has(".ffn.s_emb"), "this is an RWKV-7a model (DeepEmbed); plain versions 4 to 7 run here"),
    (_is_foreign, "this is not an RWKV model: emb.weight or blocks.0.att.key.weight is missing"),
)


def _measure(arch: Arch, shapes: Shapes) -> Dims:
    """Bind every letter of the version's tables to a number, checking all tensors against each
    other.
    """
    layers = 1 + max(int(m[1]) for m in map(_LAYER.fullmatch, shapes) if m)
    letters: dict[str, int] = {}
    missing: list[str] = []
    for name, axes in GLOBAL_PARAMS.items():
        _bind(letters, name, shapes.get(name), axes, missing)
    for layer in range(layers):
        for key, axes in arch.params.items():
            optional, names = alternatives(key)
            found = next((n for n in (f"blocks.{layer}.{x}" for x in names) if n in shapes), None)
            if found is None and (optional and (layer == 0 or not _is_value_residual(key))):
                continue
            name = found or f"blocks.{layer}.{names[0]}"
            _bind(letters, name, shapes.get(name), axes, missing)
        if len(missing) > 8:
            break  # a name such as blocks.999999999.x must not make us walk a billion layers
    if missing:
        raise RefusedError(
            f"this looks like {arch.title}, but tensors are missing: {_some(missing)}"
        )
    _derive(letters)
    return Dims(layers, letters["C"], letters["V"], letters)


def _is_value_residual(key: str) -> bool:
    """Whether a parameter that layer 0 may lack is needed in the others."""
    return key.startswith("?att.v")


def _bind(
    letters: dict[str, int],
    name: str,
    shape: tuple[int, ...] | None,
    axes: str,
    missing: list[str],
) -> None:
    """Compare a tensor's shape with its axes, binding letters seen for the first time."""
    if shape is None:
        missing.append(name)
        return
    wanted = axes.split()
    actual = fit_rank(shape, len(wanted))
    pairs = zip(wanted, actual or (), strict=False)
    if actual is None or any(n != _bound(letters, axis, n) for axis, n in pairs):
        known = " ".join(str(letters.get(a, a)) for a in wanted)
        raise RefusedError(f"tensor {name} has shape {list(shape)}, expected [{known}]")


def _bound(letters: dict[str, int], axis: str, size: int) -> int:
    return int(axis) if axis.isdigit() else letters.setdefault(axis, size)


def fit_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """Drop axes of size 1, first ones first, until the rank fits; None when it cannot."""
    axes = list(shape)
    while len(axes) > rank and 1 in axes:
        axes.remove(1)
    return tuple(axes) if len(axes) == rank else None


def _derive(letters: dict[str, int]) -> None:
    """Fill in the letters no tensor shows, and check the products that must hold."""
    letters.setdefault("A", letters["C"])
    if 0 in letters.values():
        raise RefusedError("a tensor has an axis of size zero")
    if "H" in letters:
        letters.setdefault("N", letters["A"] // letters["H"])
        if letters["H"] * letters["N"] != letters["A"]:
            raise RefusedError(
                f"{letters['H']} heads of {letters['N']} channels do not make {letters['A']}"
            )
    if "M" in letters and letters["M"] != 5 * letters["Dm"]:
        raise RefusedError(
            f"att.time_maa_w1 has {letters['M']} columns, not five times {letters['Dm']}"
        )


def _some(names: Iterable[str]) -> str:
    """List a few names."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
