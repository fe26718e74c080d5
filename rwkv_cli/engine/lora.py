"""Merges LoRA, PiSSA and DiSHA files into a model while it is loaded.

A merged tensor is made when it is asked for: its rows are widened to float32 some megabytes at a
time, changed by every file in order, and rounded once, to the precision of the model. So every
engine and every writer sees an ordinary model, and memory holds one tensor more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import TYPE_CHECKING

from rwkv_cli.checkpoints.precision import made_of, widened
from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor
from rwkv_cli.engine.lorafile import Lora, LoraFile, read_lora
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.errors import MismatchError, RefusedError, UsageError

if TYPE_CHECKING:
    from rwkv_cli.engine.lorasteps import Float32s, Step

_PIECE = 4 << 20  # numbers of a matrix that are in memory as float32 at once
_TUNED = ".att.time_state"


@dataclass(slots=True)
class _Edit:
    """What becomes of a tensor: another in its place, then steps in the order of the files."""

    begin: RawTensor
    steps: list[Step] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def with_loras(file: ModelFile, loras: Sequence[Lora]) -> ModelFile:
    """Give a model as it is with some files merged into it, in their order.

    Args:
        file: An open weights file.
        loras: The files; with none, the model is the file itself.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: One is damaged, or no LoRA; or the model is packed.
        MismatchError: One is for a model of another version or size.
        UsageError: An alpha was given for a method that has none.
    """
    if not loras:
        return file
    if file.packed:
        raise RefusedError(
            f"{file.checkpoint.path}: is packed as {file.packed.dtype}, so nothing can be merged "
            "into it",
            hint=f"-m the file that it was made from, with --dtype {file.packed.dtype}",
        )
    found = [read_lora(lora) for lora in loras]
    edits: dict[str, _Edit] = {}
    for one in [*_joined(found)]:
        _check_alpha(one)
        _add(edits, file, one)
    checkpoint = copy.copy(file.checkpoint)
    merged = {name: _merged(edit, name, file) for name, edit in edits.items()}
    checkpoint.tensors = {**file.checkpoint.tensors, **merged}
    digests = tuple(f"{one.digest};{one.lora.alpha}" for one in found)
    return replace(file, checkpoint=checkpoint, merged=digests)


def _joined(found: Sequence[LoraFile]) -> Iterator[LoraFile]:
    """Join files that hold only the beginning of a PiSSA with the trained file after or before.

    Raises:
        RefusedError: There is no such file.
    """
    begun: dict[int, dict[str, Mapping[str, RawTensor]]] = {}
    for index, one in enumerate(found):
        if one.begins_only:
            partner = _partner(one, found[index:], found[:index])
            begun.setdefault(id(partner), {}).update(one.parts)
    for one in found:
        if one.begins_only:
            yield replace(one, parts={})
        else:
            yield replace(one, parts=_completed(one, begun[id(one)])) if id(one) in begun else one


def _partner(one: LoraFile, after: Sequence[LoraFile], before: Sequence[LoraFile]) -> LoraFile:
    """Find the trained file that belongs to what its training began with."""
    for other in (*after, *reversed(before)):
        if any("lora_A" in parts for parts in other.parts.values()):
            return other
    raise RefusedError(
        f"{one.path}: holds only what the training of a PiSSA began with",
        hint=f"name the trained file as well: --lora {one.path} --lora FILE",
    )


def _completed(
    one: LoraFile, begun: Mapping[str, Mapping[str, RawTensor]]
) -> dict[str, dict[str, RawTensor]]:
    """Add to the trained parts of each matrix what they began with.

    Raises:
        RefusedError: The two files are not of the same training.
    """
    different = one.parts.keys() ^ begun.keys()
    if different:
        raise RefusedError(
            f"{one.path}: began with another file than that of its --lora: only one of the two "
            f"has {min(different)}"
        )
    return {name: {**parts, **begun[name]} for name, parts in one.parts.items()}


def _check_alpha(one: LoraFile) -> None:
    if one.lora.alpha is not None and one.method != "LoRA":
        raise UsageError(
            f"--lora {one.path}:{one.lora.alpha:g}: {one.method} has no alpha",
            hint=f"--lora {one.path}",
        )


def _add(edits: dict[str, _Edit], file: ModelFile, one: LoraFile) -> None:
    """Add what a file changes to what others did before it."""
    from rwkv_cli.engine.lorasteps import steps_of

    for name, tensor in one.whole.items():
        _check_whole(file, one, name, tensor)
        edits[name] = _Edit(tensor, files=[str(one.path)])
    for name, parts in one.parts.items():
        base = file.checkpoint.tensors.get(name)
        if base is None:
            raise _other_model(one, f"it changes {name}, which the model has not")
        _check_parts(one, base, parts)
        edit = edits.setdefault(name, _Edit(base))
        edit.steps += steps_of(parts, one.lora.alpha)
        edit.files.append(str(one.path))


def _check_whole(file: ModelFile, one: LoraFile, name: str, tensor: RawTensor) -> None:
    """Compare a tensor with the one whose place it takes; a tuned state may be new.

    Raises:
        MismatchError: It does not fit.
    """
    base = file.checkpoint.tensors.get(name)
    layers = (f"blocks.{layer}{_TUNED}" for layer in range(file.dims.layers))
    if base is not None:
        wanted = base.shape
    elif "H" in file.dims.letters and name in layers:
        wanted = file.dims.shape("H N N")
    else:
        raise _other_model(one, f"it has {name}, which the model has not")
    if [axis for axis in tensor.shape if axis != 1] != [axis for axis in wanted if axis != 1]:
        raise _other_model(
            one, f"its {name} has shape {list(tensor.shape)}, the model's {list(wanted)}"
        )


def _check_parts(one: LoraFile, base: RawTensor, parts: Mapping[str, RawTensor]) -> None:
    """Compare the parts of a matrix with it.

    Raises:
        MismatchError: They do not fit.
    """
    if len(base.shape) != 2:
        raise _other_model(one, f"{base.name} is no matrix")
    outputs, inputs = base.shape
    for kind, tensor in parts.items():
        shape = tensor.shape
        if kind.endswith("_A"):
            fits = len(shape) == 2 and shape[0] > 0 and shape[1] == inputs
        elif kind.endswith("_B"):
            rank = parts[kind[:-1] + "A"].shape[0]
            fits = shape == (outputs, rank)
        elif len(shape) == 3:
            size = shape[-1]
            whole = size > 0 and inputs % size == outputs % size == 0
            fits = whole and shape == (inputs // size, size, size)
        else:
            fits = kind == "disha" and len(shape) == 2 and shape[0] > 0 and shape[1] == outputs
        if not fits:
            raise _other_model(
                one,
                f"its {kind} of shape {list(shape)} does not fit {base.name}, which has "
                f"{outputs} outputs and {inputs} inputs",
            )


def _other_model(one: LoraFile, why: str) -> MismatchError:
    return MismatchError(
        f"{one.path}: was trained on another model: {why}", hint="-m the model it was trained on"
    )


def _merged(edit: _Edit, name: str, file: ModelFile) -> RawTensor:
    """Make the tensor that an edit leads to, in the precision that the model has there."""
    base = file.checkpoint.tensors.get(name, edit.begin)
    return made_of(replace(base, name=name), lambda: _pieces(edit, name, base.shape))


def _pieces(edit: _Edit, name: str, shape: tuple[int, ...]) -> Iterator[Float32s]:
    """Give the numbers of a merged tensor, some rows at a time.

    Raises:
        RefusedError: One is not finite.
    """
    import numpy as np

    data, dtype = edit.begin.plain().data, edit.begin.dtype
    high, width = shape[0] if shape else 1, prod(shape[1:])
    row = width * ITEM_BYTES[dtype]
    with np.errstate(all="ignore"):  # what became too large is told below
        changes = [step.begin() for step in edit.steps]
    unit = lcm(*(step.unit for step in edit.steps))
    count = max(unit, _PIECE // max(width, 1) // unit * unit)
    for first in range(0, high, count):
        rows = np.array(widened(data[first * row : (first + count) * row], dtype))
        rows = rows.reshape(-1, width)
        with np.errstate(all="ignore"):
            for change in changes:
                change(rows, first)
        if not np.isfinite(rows).all():
            raise RefusedError(f"{', '.join(edit.files)}: makes {name} infinite or no number")
        yield rows.reshape(-1)
