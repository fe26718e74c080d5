"""`rwkv info`: what a file is, told from its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.infofacts import UNFINISHED, facts_of
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import expanded, models_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import stdout_sink

_LABELS = {"file_bytes": "size", "state_bytes": "state"}
_KNOWN = (".rwkvstate", ".json", ".txt", *UNFINISHED)


@click.command(cls=Command)
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--tensors", is_flag=True, help="List every tensor as well.")
@common_options
def info(file: str, as_json: bool, tensors: bool, quiet: bool, verbose: bool, debug: bool) -> None:
    """Tell what a file is, and how to use it; reads the header alone.

    Knows weights files, saved states, LoRA, PiSSA and DiSHA files, tuned initial
    states and tokenizers.
    """
    named = file.endswith(_KNOWN)
    path = expanded(file) if named else resolve(file, models_folder())
    facts = facts_of(Path(path), file, tensors=tensors)
    if as_json:
        text = json.dumps(facts)
    else:
        text = "\n".join(_line(key, value) for key, value in facts.items())
    stdout_sink().write(text.encode("utf-8", "replace") + b"\n")


def _line(key: str, value: Any) -> str:
    """Write one fact for people."""
    label = _LABELS.get(key, key.replace("_", " "))
    if isinstance(value, dict):
        rows = "\n".join(f"  {safe(name)}  {safe(str(v))}" for name, v in value.items())
        return f"{label}\n{rows}"
    if isinstance(value, list):
        value = ", ".join(value)
    if value is True:
        value = "yes"
    if key.endswith("_bytes"):
        return f"{label:<12} {value:,} bytes"
    return f"{label:<12} {value:,}" if isinstance(value, int) else f"{label:<12} {safe(str(value))}"
