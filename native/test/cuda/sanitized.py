"""Runs pytest, with the arguments given, where the CUDA kernels' host has the address sanitizer.

    python native/test/cuda/sanitized.py tests/native/test_cuda_*.py

The compiler's runtime of it is loaded first, into a Python that was built without.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))

from oracle.cuda_host import compiler, sanitized_environment


def main(arguments: list[str]) -> int:
    """What pytest returns; 0 without a compiler that has the sanitizer, which it says."""
    environment = sanitized_environment() if compiler() else None
    if environment is None:
        sys.stdout.write(
            "The CUDA kernels' host was not checked: no g++ with an address sanitizer.\n"
        )
        return 0
    # The sanitizer writes to the descriptor and ends the process: nothing may hold that back.
    # As a script, pytest leaves this folder out of the path: the package is the installed one.
    pytest = str(Path(sysconfig.get_path("scripts")) / "pytest")
    command = [sys.executable, pytest, "--capture=sys", *arguments]
    done = subprocess.run(command, env=environment, check=False)  # noqa: S603 - this very Python
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
