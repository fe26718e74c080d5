"""A process that `rwkv bench` starts: a command line, and the most memory it took, on stderr."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from rwkv_cli.cli.app import leave, run
from rwkv_cli.render.streams import note


def main() -> int:
    """Run the command line of this process."""
    code = run(sys.argv[1:])
    note(str(peak_memory() or ""))
    return leave(code)


def peak_memory() -> int | None:
    """Give the most bytes of memory this program has held; None where the system does not tell.

    Linux keeps count for the program itself; its other account, of the process, begins with what
    the parent held when it started this one.
    """
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return None


if __name__ == "__main__":
    sys.exit(main())
