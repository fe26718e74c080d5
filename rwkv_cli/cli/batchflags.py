"""The flags of `rwkv generate -i`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rwkv_cli.cli.options import NUMBER, together


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
    _flag("--format", metavar="KIND", text="Of the rows: jsonl, openai, csv, tsv or lines."),
    _flag("-j", "--jobs", metavar="N", kind=NUMBER, text="Rows at once; as memory allows."),
    _flag("--skip", metavar="N", kind=NUMBER, text="Pass over the first rows."),
    _flag("--limit", metavar="N", kind=NUMBER, text="Answer so many rows at most."),
    _flag("--dry-run", text="Show what would be asked, and how long it would take."),
    _flag("--unordered", text="Leave rows in the order in which they end."),
    _flag("--errors", metavar="FILE", text="Write rows that failed there."),
    _flag("--retry-errors", text="Try rows that failed again."),
    _flag("--restart", text="Throw away what an earlier run wrote."),
    _flag("--ray-address", metavar="ADDRESS", text="Of the cluster for --engine ray (auto)."),
))  # fmt: skip

# What makes no sense without rows, by the name of its value.
BATCH_ONLY = {
    "format": "--format", "jobs": "-j", "skip": "--skip", "limit": "--limit",
    "dry_run": "--dry-run", "unordered": "--unordered", "errors": "--errors",
    "retry_errors": "--retry-errors", "restart": "--restart", "ray_address": "--ray-address",
}  # fmt: skip
