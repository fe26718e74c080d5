"""The flags of `rwkv generate -i`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rwkv_cli.batch.kinds import KINDS
from rwkv_cli.cli.options import NUMBER, together
from rwkv_cli.errors import UsageError
from rwkv_cli.text.templates import load_template

RAY = "ray"  # what --engine calls a cluster


class BatchOption(click.Option):
    """An option that is about rows."""

    section = "Rows"


def _flag(
    *names: str, text: str, metavar: str | None = None, kind: click.ParamType[int] | None = None
) -> Callable[[Any], Any]:
    if metavar is None:
        return click.option(*names, cls=BatchOption, is_flag=True, help=text)
    return click.option(*names, cls=BatchOption, metavar=metavar, type=kind, help=text)


batch_options = together((
    _flag("-i", "--input", metavar="FILE", text="Answer each row of a file; '-' is stdin."),
    _flag("--format", metavar="KIND", text="jsonl, openai, csv, tsv, lines; else as it looks."),
    _flag("-j", "--jobs", metavar="N", kind=NUMBER, text="Rows at once; else as memory allows."),
    _flag("--skip", metavar="N", kind=NUMBER, text="Pass over the first rows."),
    _flag("--limit", metavar="N", kind=NUMBER, text="Answer so many rows at most."),
    _flag("--dry-run", text="Show what would be asked, and how long it would take."),
    _flag("--no-overrides", text="Fields such as temperature set nothing."),
    _flag("--unordered", text="Leave rows in the order in which they end."),
    _flag("--errors", metavar="FILE", text="Write rows that failed there."),
    _flag("--retry-errors", text="Ask again the rows that failed."),
    _flag("--restart", text="Throw away what an earlier run wrote."),
    _flag("--ray-address", metavar="ADDRESS", text="Cluster of --engine ray; else auto."),
))  # fmt: skip

# What makes no sense with rows, by the name of its value; then without a file; then too small.
_FOR_ONE = {
    "files": "-f", "prompt_tokens": "--prompt-tokens", "echo": "--echo",
    "save_state": "--save-state", "as_json": "--json", "no_stdin": "--no-stdin",
}  # fmt: skip
_FOR_FILES = {"errors": "--errors", "retry_errors": "--retry-errors", "restart": "--restart"}
_NAMES = {"input": "-i", "output": "-o", "errors": "--errors"}
_LEAST = {"jobs": ("-j", 1), "skip": ("--skip", 0), "limit": ("--limit", 1)}

# What makes no sense without rows, by the name of its value.
BATCH_ONLY = {
    "format": "--format", "jobs": "-j", "skip": "--skip", "limit": "--limit",
    "dry_run": "--dry-run", "unordered": "--unordered", "errors": "--errors",
    "retry_errors": "--retry-errors", "restart": "--restart", "ray_address": "--ray-address",
    "no_overrides": "--no-overrides",
}  # fmt: skip


def check_batch_flags(flags: dict[str, Any]) -> None:
    """Refuse flags that make no sense with rows, or not with each other.

    Raises:
        UsageError: One does not.
    """
    _check_prompts(flags)
    if flags["mode"] == "raw" and flags["system"] is not None:
        raise UsageError("--raw has no place for a system text; leave out --raw or -s")
    if flags["format"] not in (None, *KINDS):
        raise UsageError(f"--format is {flags['format']!r}; it must be one of {', '.join(KINDS)}")
    for name, flag in _FOR_FILES.items():
        if flags[name] and not flags["output"]:
            raise UsageError(f"{flag} is for the rows of a file; add -o FILE")
    for name, (flag, least) in _LEAST.items():
        if flags[name] is not None and flags[name] < least:
            raise UsageError(f"{flag} is {flags[name]}; it must be at least {least}")
    _check_names(flags)


def _check_names(flags: dict[str, Any]) -> None:
    """Refuse names of files that cannot be meant."""
    for name, flag in _NAMES.items():
        if flags[name] == "":  # from a variable that is not set
            raise UsageError(f"{flag} names no file")
    given, output = Path(flags["input"]), Path(flags["output"] or "-")
    if given.is_file() and output.is_file() and given.samefile(output):
        raise UsageError(f"{given} would be written while it is read")


def _check_prompts(flags: dict[str, Any]) -> None:
    """Check that the rows alone are prompts, and that --template can be meant."""
    if flags["words"]:
        words = " ".join(flags["words"])
        raise UsageError(
            f"with -i the rows are the prompts; there is no place for {words!r}",
            hint="--template 'Translate: {text}' says something with each row",
        )
    for name, flag in _FOR_ONE.items():
        if flags[name]:
            raise UsageError(f"{flag} is for a single prompt; with -i the rows are the prompts")
    form = told_apart(flags["template"])[1]
    try:
        load_template(form or "world")
    except UsageError as error:
        error.hint = "a template for rows has fields in braces: 'Translate: {text}'"
        raise


def told_apart(template: str | None) -> tuple[str | None, str | None]:
    """Tell what --template means: a text with fields for the rows, or the name of a chat format.

    Returns:
        The text, and the name.
    """
    if template is not None and (template.startswith("@") or "{" in template):
        return template, None
    return None, template
