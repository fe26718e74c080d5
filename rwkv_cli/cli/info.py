"""`rwkv info`: what a file is, told from its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwkv_cli.cli.infofacts import UNFINISHED, facts_of
from rwkv_cli.cli.options import NUMBER, Command, common_options
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import expanded, models_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import stdout_sink

if TYPE_CHECKING:
    from rwkv_cli.engine.estimate import Plan

_LABELS = {"file_bytes": "size", "state_bytes": "state"}
_KNOWN = (".rwkvstate", ".json", ".txt", *UNFINISHED)


@click.command(cls=Command)
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--tensors", is_flag=True, help="List every tensor as well.")
@click.option("--plan", is_flag=True, help="Tell how it would run here: memory, speed.")
@click.option("--strategy", metavar="TEXT", help="Plan for this one; else for the best here.")
@click.option("--vram-budget", type=NUMBER, metavar="N", help="Most bytes of a card, such as 3g.")
@click.option("--ram-budget", type=NUMBER, metavar="N", help="Most bytes of memory, such as 8g.")
@common_options
def info(file: str, as_json: bool, tensors: bool, **flags: Any) -> None:
    """Tell what a file is, and how to use it; reads the header alone.

    Knows weights files, saved states, LoRA, PiSSA and DiSHA files, tuned initial
    states and tokenizers.
    """
    named = file.endswith(_KNOWN)
    path = expanded(file) if named else resolve(file, models_folder())
    facts = facts_of(path, file, tensors=tensors)
    text = "".join(_line(key, value) + "\n" for key, value in facts.items())
    if _wants_plan(flags):
        from rwkv_cli.cli.infoplan import plan_facts, plan_text

        plan = _planned(path, flags)
        facts, text = {**facts, "plan": plan_facts(plan)}, f"{text}\n{plan_text(plan)}"
    if as_json:
        text = json.dumps(facts) + "\n"
    stdout_sink().write(text.encode("utf-8", "replace"))


def _wants_plan(flags: Mapping[str, Any]) -> bool:
    asked = (flags[name] is not None for name in ("strategy", "vram_budget", "ram_budget"))
    return flags["plan"] or any(asked)


def _planned(path: Path, flags: Mapping[str, Any]) -> Plan:
    """Plan how a model would run here.

    Raises:
        UsageError: The strategy is malformed.
        LimitError: Nothing fits.
    """
    from rwkv_cli.engine.modelfile import open_model
    from rwkv_cli.engine.plan import plan_for
    from rwkv_cli.engine.strategy import Budgets

    budgets = Budgets(flags["vram_budget"], flags["ram_budget"])
    return plan_for(open_model(path), flags["strategy"], budgets)


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
