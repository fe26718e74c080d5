"""What `rwkv info` finds out: facts of a model, a state, a LoRA, a tuned state or a tokenizer, each
told from its header.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.engine.modelfile import ModelFile, is_state_file, open_model
from rwkv_cli.errors import RefusedError, RwkvError
from rwkv_cli.sizes import size_of

if TYPE_CHECKING:
    from rwkv_cli.engine.packed import Packed

Facts = dict[str, Any]

UNFINISHED = (".part", ".crdownload", ".download", ".incomplete", ".aria2", ".partial")
_TOKENIZERS = (".json", ".txt")


def facts_of(path: Path, named: str, *, tensors: bool) -> Facts:
    """Collect what a file tells of itself.

    Args:
        path: The file.
        named: What the user calls it, for the command that runs it.
        tensors: Whether to list the tensors.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It cannot be used, with what it is and what to do.
        MismatchError: It is in a form of another version of this program.
    """
    if is_state_file(path):
        return _state_facts(path)
    if path.suffix.lower() in UNFINISHED and path.is_file():
        raise RefusedError(
            f"{path}: is an unfinished download", hint="start the download again to complete it"
        )
    try:
        return model_facts(open_model(path), named, tensors=tensors)
    except RefusedError:
        found = _lora_facts(path) or _tuned_facts(path) or _tokenizer_facts(path)
        if found is None:
            raise
        return found


def model_facts(file: ModelFile, named: str, *, tensors: bool) -> Facts:
    """Collect what the header of a weights file tells."""
    from rwkv_cli.arch.spec import state_shapes

    path, dims = file.checkpoint.path, file.dims
    listed: Any = file.packed.tensors if file.packed else file.checkpoint.tensors
    state = sum(4 * prod(shape) for shape in state_shapes(file.arch, dims).values())
    facts: Facts = {
        "file": str(path),
        "format": file.checkpoint.format,
        "version": file.arch.name,
        "title": file.arch.title,
        "parameters": sum(prod(one.shape) for one in listed.values()),
        "layers": dims.layers,
        "width": dims.width,
        "heads": dims.letters.get("H"),
        "head_size": dims.letters.get("N"),
        "ffn_width": dims.letters["F"],
        "vocabulary": dims.vocab,
        "tokenizer": file.tokenizer,
        "template": file.template,
        "prompt": _prompt(file.template),
        "weights": sorted({_kind(one) for one in listed.values()}),
        "file_bytes": size_of(path),
        "state_bytes": state,
        "tuned_state": any(name.endswith(".time_state") for name in listed) or None,
    }
    if file.packed:
        facts |= _packed_facts(file.packed)
    if tensors:
        facts["tensors"] = {n: f"{_kind(one)} {list(one.shape)}" for n, one in listed.items()}
    facts |= _published(path)
    facts["problem"] = _problem(file)
    facts["run"] = f"rwkv chat -m {shlex.quote(named)}"
    return {key: value for key, value in facts.items() if value not in (None, [])}


def _kind(one: Any) -> str:
    """Name the form that a tensor, of a packed file or of another, has there."""
    return getattr(one, "coding", None) or str(one.dtype)


def _published(path: Path) -> Facts:
    """Tell which published model a file is, by its name and size; nothing where none is like it."""
    from rwkv_cli.hub.catalogue import entries

    size = size_of(path)
    for entry in entries():
        name = entry.file.rpartition("/")[2]
        if name and entry.size == size:
            told = f"the size of {name}" if path.name != name else "its name and size are right"
            if path.name == name and entry.sha256:
                told += f"; its sha256 must be {entry.sha256}"
            return {"published_as": entry.name, "compared": told}
        if name and path.name == name and entry.size:
            wanted = f"{entry.size:,} bytes when published, {size:,} here: another file, or cut"
            return {"published_as": entry.name, "compared": wanted}
    return {}


def _prompt(template: str) -> str:
    """Show how a question is put to the model, in one line."""
    from rwkv_cli.text.templates import load_template

    form = load_template(template)
    return (form.start + form.turn_form.replace("{text}", "…")).replace("\n", "\\n")


def _problem(file: ModelFile) -> str | None:
    """Say what stands in the way of running a model; None when nothing does."""
    if file.tokenizer is None:
        vocab = file.dims.vocab
        return f"no known tokenizer has a vocabulary of {vocab}: name one with --tokenizer FILE"
    if file.tokenizer == "20b":
        from rwkv_cli.text.bpe import find_20b

        if find_20b(file.folder) is None:
            return "its tokenizer is missing: put 20B_tokenizer.json beside it, or among the models"
    return None


def _packed_facts(packed: Packed) -> Facts:
    """Collect what a packed file tells of its making."""
    kept = packed.kept()
    errors = {n: one.error for n, one in packed.tensors.items() if one.error and n not in kept}
    worst = max(errors, key=lambda name: errors[name] or 0, default=None)
    return {
        "packed": packed.dtype,
        "packed_from": packed.weights,
        "largest_error": f"{errors[worst]:.4f} in {worst}" if worst else None,
        "kept_in_16_bits": {n: f"error {packed.tensors[n].error:.4f}" for n in kept} or None,
    }


def _state_facts(path: Path) -> Facts:
    """Collect what a state file tells."""
    from rwkv_cli.engine.statefile import inspect_state

    state = inspect_state(path)
    return {
        "file": str(path),
        "format": "rwkvstate",
        "tokens": state.position,
        "model": state.identity.arch,
        "weights": state.identity.weights,
        "tokenizer": state.identity.tokenizer,
        "numerics": state.identity.numerics,
        "writer": state.writer,
        "file_bytes": state.nbytes,
    }


def _names(path: Path) -> Collection[str]:
    """Give the names of the tensors in a file; none where it holds none, or cannot be read."""
    from rwkv_cli.checkpoints.open import open_checkpoint

    try:
        return open_checkpoint(path).tensors
    except RwkvError:
        return ()


def _lora_facts(path: Path) -> Facts | None:
    """Collect what a LoRA, PiSSA or DiSHA tells; nothing for anything else.

    Raises:
        RefusedError: It is a damaged one.
    """
    from rwkv_cli.engine.lorafile import Lora, has_parts, read_lora

    if not has_parts(_names(path)):
        return None
    lora = read_lora(Lora(path))
    kinds = {kind: part for parts in lora.parts.values() for kind, part in parts.items()}
    low = kinds.get("lora_A") or kinds.get("init_lora_A")
    shared = low or kinds.get("disha") or kinds["bone"]
    quoted = shlex.quote(str(path))
    alpha = ":ALPHA" if lora.method == "LoRA" else ""
    return {
        "file": str(path),
        "format": lora.method,
        "holds": "trained changes to a model, to be merged into it",
        "rank": shared.shape[0] if len(shared.shape) == 2 else shared.shape[-1],
        "layers": len({name.split(".")[1] for name in lora.parts if name.startswith("blocks.")}),
        "matrices": len(lora.parts),
        "kinds": sorted({name.split(".", 2)[-1] for name in lora.parts}),
        "whole": len(lora.whole),
        "weights": sorted({part.dtype for part in kinds.values()}),
        "file_bytes": path.stat().st_size,
        "run": f"rwkv chat -m MODEL --lora {quoted}{alpha}",
    }


def _tuned_facts(path: Path) -> Facts | None:
    """Collect what a tuned initial state tells; nothing for anything else."""
    from rwkv_cli.checkpoints.open import open_checkpoint

    names = _names(path)
    if not names or not all(name.endswith(".att.time_state") for name in names):
        return None
    tensors = open_checkpoint(path).tensors
    first = next(iter(tensors.values()))
    return {
        "file": str(path),
        "format": "tuned state",
        "holds": "an initial state that was trained, to start conversations from",
        "layers": len(tensors),
        "heads": first.shape[0] if first.shape else None,
        "weights": sorted({tensor.dtype for tensor in tensors.values()}),
        "file_bytes": path.stat().st_size,
        "run": f"rwkv state import {shlex.quote(str(path))} NAME -m MODEL",
    }


def _tokenizer_facts(path: Path) -> Facts | None:
    """Collect what a tokenizer's file tells; nothing for anything else."""
    from rwkv_cli.text.registry import load_tokenizer

    if path.suffix.lower() not in _TOKENIZERS:
        return None
    try:
        words = load_tokenizer(str(path))
    except RwkvError:
        return None
    return {
        "file": str(path),
        "format": "tokenizer",
        "holds": "a vocabulary, for models that do not bring theirs",
        "vocabulary": words.vocab_size,
        "digest": words.digest,
        "file_bytes": path.stat().st_size,
        "run": f"rwkv chat -m MODEL --tokenizer {shlex.quote(str(path))}",
    }
