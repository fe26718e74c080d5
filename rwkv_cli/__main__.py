"""The entry point: answers what needs no imports at once, and hands everything else
to `cli.app`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HELP = Path(__file__).parent / "cli" / "help"


def main() -> int:
    """Run the command line of this process."""
    arguments = sys.argv[1:]
    text = _ready_text(arguments)
    if text is None:
        from rwkv_cli.cli.app import leave, run

        return leave(run(arguments))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, AttributeError):
        from rwkv_cli.cli.app import run

        return run(arguments)  # it reports a closed or full stdout
    return 0


def _ready_text(arguments: list[str]) -> str | None:
    """Give the answer to --version and --help, whose pages are made when the program is built."""
    if arguments in (["--version"], ["-V"]):
        from rwkv_cli.version import __version__

        return f"rwkv {__version__}\n"
    if arguments in ([], ["-h"], ["--help"], ["help"]):
        return _page("rwkv")
    if len(arguments) == 2 and arguments[1] in ("-h", "--help"):
        return _page(arguments[0])
    if len(arguments) == 2 and arguments[0] == "help":
        return _page(arguments[1])
    return None


def _page(name: str) -> str | None:
    """Read a page of the help; None when there is none of that name."""
    if not name.isalnum():
        return None
    try:
        return (HELP / f"{name}.txt").read_text(encoding="utf-8")
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
