"""Measure and check the CUDA kernels on this machine's card, in nine minutes or in parts.

`python benchmarks/gpu.py [facts|kernels|equality|speed|batches|profile|peer|sanitize ...]
--out FOLDER [--limit SECONDS]`

It runs from a checkout: the package need not be installed. `FOLDER/gpu.json` and `FOLDER/gpu.md`
are written after each measurement, so that a run that is cut off leaves what it had.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu.script import main  # noqa: E402 - the package `gpu` beside this file, not the file

if __name__ == "__main__":
    main()
