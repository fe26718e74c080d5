"""The entry point: answers what needs no imports at once, and hands everything else
to `cli.app`.
"""

from __future__ import annotations

import gc
import os
import sys

HELP = os.path.join(os.path.dirname(__file__), "cli", "help")  # noqa: PTH118, PTH120 - pathlib is slow


def main() -> int:
    """Run the command line of this process."""
    arguments = sys.argv[1:]
    try:
        text = _ready_text(arguments)
        if text is not None and _written(text):
            return 0
        gc.disable()  # what is imported is no garbage; on again with the command (cli/importing.py)
        from rwkv_cli.cli.app import leave, run

        return leave(run(arguments))
    except KeyboardInterrupt:  # while modules are imported
        os._exit(130)


def _ready_text(arguments: list[str]) -> bytes | None:
    """Give the answer to --version and --help, whose pages are made when the program is built."""
    if arguments in (["--version"], ["-V"]):
        from rwkv_cli.version import __version__

        return f"rwkv {__version__}\n".encode()
    if arguments in ([], ["-h"], ["--help"], ["help"]):
        return _page("rwkv")
    if len(arguments) == 2 and arguments[1] in ("-h", "--help"):
        return _page(arguments[0])
    if len(arguments) == 2 and arguments[0] == "help":
        return _page(arguments[1])
    return None


def _page(name: str) -> bytes | None:
    """Read a page of the help; None when there is none of that name."""
    if not (name.isascii() and name.isalpha()):
        return None
    try:
        with open(os.path.join(HELP, f"{name}.txt"), "rb") as file:  # noqa: PTH118, PTH123
            return file.read()
    except OSError:
        return None


def _written(text: bytes) -> bool:
    """Write to stdout; False when that fails, which `run` will meet again and report."""
    try:
        while text:
            text = text[os.write(1, text) :]
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
