"""What a weights file is, told from its header; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.arch.detect import detect
from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import Checkpoint
from rwkv_cli.engine.identity import combined, fingerprint
from rwkv_cli.engine.packed import Packed, is_packed, read_packed
from rwkv_cli.engine.placement import natural_floats
from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.text.registry import for_vocabulary
from rwkv_cli.text.templates import template_for

DEMO = Path(__file__).parents[1] / "data" / "demo.safetensors"
_FLOATS = {"F32", "F16", "BF16", "F64"}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What the header of a weights file tells.

    Attributes:
        checkpoint: The open file.
        arch: The version of RWKV.
        dims: Its sizes.
        tokenizer: Name of the tokenizer that belongs to it; None when nothing tells.
        template: Name of its chat format.
        packed: What a packed file tells beyond that; None for every other.
        merged: Digests of what `engine.lora` merges into it.
    """

    checkpoint: Checkpoint
    arch: Arch
    dims: Dims
    tokenizer: str | None
    template: str
    packed: Packed | None = None
    merged: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Tell one set of weights from another; a packed file is what it was made from, and a
        merged model follows from its parts.
        """
        if self.packed:
            return self.packed.weights
        with self.checkpoint.scattered_reads():
            own = fingerprint(self.checkpoint.tensors)
        return combined([own, *self.merged]) if self.merged else own

    @property
    def floats(self) -> str:
        """The float precision of its matrices, which is that of its head."""
        return natural_floats(self.checkpoint.tensors["head.weight"])

    @property
    def folder(self) -> Path:
        """Where files that belong to it lie."""
        path = self.checkpoint.path
        return path if path.is_dir() else path.parent


def is_state_file(path: Path) -> bool:
    """Tell by the name whether a file claims to be a state."""
    return path.suffix == ".rwkvstate"


def open_model(path: Path) -> ModelFile:
    """Read the header of a weights file, or of a folder of them, and tell what it is; no weights
    are read.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, or not a model that runs here.
        MismatchError: It was packed by another version of this program.
    """
    checkpoint = open_checkpoint(path)
    _check_unconverted(checkpoint)
    packed: Packed | None = None
    if is_packed(checkpoint):
        packed, arch, dims = read_packed(checkpoint)
    else:
        arch, dims = _measured(checkpoint)
    notes = checkpoint.metadata
    tokenizer = notes.get("rwkv.tokenizer") or for_vocabulary(dims.vocab)
    template = notes.get("rwkv.template") or template_for(
        tokenizer=tokenizer or "", name=path.name, version=arch.name
    )
    return ModelFile(checkpoint, arch, dims, tokenizer, template, packed)


def check_precision(file: ModelFile, dtype: str | None) -> None:
    """Compare what is asked for with what a packed file has.

    Raises:
        UsageError: They differ.
    """
    if file.packed and dtype not in (None, file.packed.dtype):
        raise UsageError(
            f"{file.checkpoint.path}: is packed as {file.packed.dtype}, not {dtype}",
            hint=f"leave out what asks for {dtype}, or name the file that it was made from",
        )


def _check_unconverted(checkpoint: Checkpoint) -> None:
    """Refuse what the converter of the package rwkv wrote: it applies blocks.0.ln0 to the embedding
    and drops it, so the weights as they were trained cannot be had back.

    Raises:
        RefusedError: The file is one of those.
    """
    strategy = checkpoint.metadata.get("_strategy")
    if strategy is None:
        return
    codes = "its matrices are 8-bit codes of that package, and " if "i8" in strategy else ""
    raise RefusedError(
        f"{checkpoint.path}: was converted by the package rwkv for the strategy {strategy!r}: "
        f"{codes}the layer norm of its embedding is applied already and no longer in the file",
        hint="use the original file that it was made from",
    )


def _measured(checkpoint: Checkpoint) -> tuple[Arch, Dims]:
    """Tell version and sizes from the tensors.

    Raises:
        RefusedError: They are no model that runs here.
    """
    try:
        arch, dims = detect({name: t.shape for name, t in checkpoint.tensors.items()})
    except RefusedError as error:
        raise RefusedError(f"{checkpoint.path}: {error.message}", hint=error.hint) from error
    for tensor in checkpoint.tensors.values():
        if tensor.dtype not in _FLOATS:
            raise RefusedError(f"{checkpoint.path}: tensor {tensor.name} has type {tensor.dtype}")
    return arch, dims
