"""Write what is made from the program itself: help pages, completion scripts, docs/commands.md.

Run it in an environment where the package is installed from this checkout: `make install
generated`.
"""

from __future__ import annotations

from pathlib import Path

import click

from rwkv_cli.cli.app import COMMANDS, program
from rwkv_cli.cli.completion import script

ROOT = Path(__file__).resolve().parents[1]
SHELLS = {"bash": "rwkv.bash", "zsh": "_rwkv", "fish": "rwkv.fish", "powershell": "rwkv.ps1"}


def pages() -> dict[str, str]:
    """Give the help page of the program and of every command, by name."""
    group = program()
    top = click.Context(group, info_name="rwkv", **group.context_settings)
    found = {"rwkv": group.get_help(top) + "\n"}
    for name in COMMANDS:
        command = group.get_command(top, name)
        assert command is not None
        context = click.Context(command, parent=top, info_name=name)
        found[name] = command.get_help(context) + "\n"
    return found


def reference() -> str:
    """Write docs/commands.md."""
    parts = ["# Commands\n\nMade by `docs/generate.py` from the program's own help.\n"]
    for name, page in pages().items():
        title = name if name == "rwkv" else f"rwkv {name}"
        parts.append(f"## {title}\n\n```text\n{page}```\n")
    return "\n".join(parts)


def generated() -> dict[Path, str]:
    """Give every generated file with its content."""
    files = {ROOT / "rwkv_cli" / "cli" / "help" / f"{n}.txt": page for n, page in pages().items()}
    files |= {ROOT / "completions" / file: script(shell) for shell, file in SHELLS.items()}
    files[ROOT / "docs" / "commands.md"] = reference()
    return files


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
