"""`rwkv info`: what a weights file or a state file is, told from its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import models_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import stdout_sink

if TYPE_CHECKING:
    from rwkv_cli.engine.packed import Packed

_LABELS = {"file_bytes": "size", "state_bytes": "state"}


@click.command(cls=Command)
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--tensors", is_flag=True, help="List every tensor as well.")
@common_options
def info(file: str, as_json: bool, tensors: bool, quiet: bool, verbose: bool, debug: bool) -> None:
    """Tell what a weights file or a state file is; reads the header alone."""
    path = Path(file) if file.endswith(".rwkvstate") else resolve(file, models_folder())
    facts = _state_facts(path) if _is_state(path) else _model_facts(path, tensors=tensors)
    if as_json:
        text = json.dumps(facts)
    else:
        text = "\n".join(_line(key, value) for key, value in facts.items())
    stdout_sink().write(text.encode("utf-8", "replace") + b"\n")


def _is_state(path: Path) -> bool:
    from rwkv_cli.engine.modelfile import is_state_file

    return is_state_file(path)


def _model_facts(path: Path, *, tensors: bool) -> dict[str, Any]:
    """Collect what the header of a weights file tells."""
    from math import prod

    from rwkv_cli.arch.spec import state_shapes
    from rwkv_cli.engine.modelfile import open_model

    file = open_model(path)
    dims = file.dims
    listed: Any = file.packed.tensors if file.packed else file.checkpoint.tensors
    state = sum(4 * prod(shape) for shape in state_shapes(file.arch, dims).values())
    facts: dict[str, Any] = {
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
        "weights": sorted({one.dtype for one in listed.values()}),
        "file_bytes": path.stat().st_size,
        "state_bytes": state,
    }
    if file.packed:
        facts |= _packed_facts(file.packed)
    if tensors:
        facts["tensors"] = {n: f"{one.dtype} {list(one.shape)}" for n, one in listed.items()}
    return {key: value for key, value in facts.items() if value is not None}


def _packed_facts(packed: Packed) -> dict[str, Any]:
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


def _state_facts(path: Path) -> dict[str, Any]:
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


def _line(key: str, value: Any) -> str:
    """Write one fact for people."""
    label = _LABELS.get(key, key.replace("_", " "))
    if isinstance(value, dict):
        rows = "\n".join(f"  {safe(name)}  {safe(str(v))}" for name, v in value.items())
        return f"{label}\n{rows}"
    if isinstance(value, list):
        value = ", ".join(value)
    if key.endswith("_bytes"):
        return f"{label:<12} {value:,} bytes"
    return f"{label:<12} {value:,}" if isinstance(value, int) else f"{label:<12} {safe(str(value))}"
