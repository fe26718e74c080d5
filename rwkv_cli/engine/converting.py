"""Writes a model in a format of others, a tensor at a time: .pth, .safetensors, or a folder of
Hugging Face.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rwkv_cli.checkpoints.precision import FLOATS, cast, plain_bytes
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.checkpoints.write_hf import for_transformers
from rwkv_cli.checkpoints.write_pth import write_pth
from rwkv_cli.checkpoints.write_safetensors import write_safetensors
from rwkv_cli.engine import huggingface
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.errors import LimitError, RefusedError
from rwkv_cli.files import replacing, replacing_folder
from rwkv_cli.sizes import require_room

Progress = Callable[[int], None]

KINDS = ("pth", "safetensors", "hf")

_ROOT = "archive"  # torch looks for no particular name
_HEADER_ROOM = 1 << 20  # bytes that headers take at most, of models of some thousand tensors


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A model as it will be written.

    Attributes:
        kind: One of `KINDS`.
        tensors: Under the names of that format, in its types and shapes.
        notes: For the header of a .safetensors file.
        rounded: How many tensors are in another precision than in the model.
        decoded: How many are quantized in the file, and are written as plain numbers.
        renamed: How many have another name.
        reshaped: How many have their numbers under another shape.
    """

    kind: str
    tensors: list[RawTensor]
    notes: dict[str, str]
    rounded: int
    decoded: int
    renamed: int
    reshaped: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(map(plain_bytes, self.tensors))

    @property
    def dtypes(self) -> list[str]:
        """Precisions of the tensors, the one of most numbers first."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors:
            counts[tensor.dtype] += plain_bytes(tensor)
        names = {kind: name for name, kind in FLOATS.items()}
        return [names.get(kind, kind.lower()) for kind, _ in counts.most_common()]


def outgoing(file: ModelFile, kind: str, dtype: str | None) -> Outgoing:
    """Give a model the names, shapes and types of a format; no weights are read.

    Args:
        file: An open weights file.
        kind: One of `KINDS`.
        dtype: "fp32", "bf16" or "fp16"; None keeps the precision of each tensor.

    Raises:
        RefusedError: The file is packed.
        UsageError: The format has no place for this model.
    """
    if file.packed:
        raise RefusedError(
            f"{file.checkpoint.path}: is packed as {file.packed.dtype} for this program's engines",
            hint="name the file that it was made from",
        )
    if kind == "hf":
        huggingface.check_convertible(file)
    before = list(file.checkpoint.tensors.values())
    after = [cast(tensor, FLOATS[dtype]) if dtype else tensor for tensor in before]
    if kind == "hf":
        after = [for_transformers(tensor, file.arch.name) for tensor in after]
    pairs = list(zip(before, after, strict=True))
    notes = {"format": "pt", "rwkv.template": file.template}
    if file.tokenizer:
        notes["rwkv.tokenizer"] = file.tokenizer
    return Outgoing(
        kind,
        after,
        notes,
        rounded=sum(old.dtype != new.dtype for old, new in pairs),
        decoded=sum(old.coding is not None for old in before),
        renamed=sum(old.name != new.name for old, new in pairs),
        reshaped=sum(old.shape != new.shape for old, new in pairs),
    )


def write_model(
    file: ModelFile, model: Outgoing, path: Path, progress: Progress | None = None
) -> None:
    """Write a model; what was at that path is replaced when all is written, and not before.

    Args:
        file: The open weights file that the model was made from.
        model: As `outgoing` gives it.
        path: The file to write, or the folder.
        progress: Called with the bytes of each tensor as it is written.

    Raises:
        StorageError: The disk is too small, or refused; nothing is left behind.
        RefusedError: A number does not fit the precision, or the file turns out to be damaged.
        LimitError: There is not enough memory.
    """

    def written(tensor: RawTensor) -> None:
        file.checkpoint.release(tensor)
        if progress:
            progress(plain_bytes(tensor))

    require_room(path.parent, model.nbytes + _HEADER_ROOM)
    try:
        if model.kind == "hf":
            _write_folder(file, model, path, written)
        else:
            with replacing(path) as out:
                _write(out, model, written)
    except MemoryError as error:
        raise LimitError(f"{file.checkpoint.path}: not enough memory to convert it") from error


def _write(out: BinaryIO, model: Outgoing, written: Callable[[RawTensor], None]) -> None:
    if model.kind == "pth":
        write_pth(out, model.tensors, _ROOT, written)
    else:
        write_safetensors(out, model.tensors, model.notes, written)


def _write_folder(
    file: ModelFile, model: Outgoing, path: Path, written: Callable[[RawTensor], None]
) -> None:
    """Write weights, config and, where there is one, the tokenizer."""
    head = next(tensor for tensor in model.tensors if tensor.name == "head.weight")
    texts = {huggingface.CONFIG: huggingface.config_of(file, head.dtype)}
    tokenizer = huggingface.tokenizer_file(file)
    if tokenizer:
        texts[huggingface.TOKENIZER_CONFIG] = huggingface.tokenizer_config()
    with replacing_folder(path) as folder:
        with (folder / huggingface.WEIGHTS).open("xb") as out:
            _write(out, model, written)
        for name, content in texts.items():
            text = json.dumps(content, indent=2) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
        if tokenizer:
            shutil.copyfile(tokenizer, folder / huggingface.TOKENIZER)
