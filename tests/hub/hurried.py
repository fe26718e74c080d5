"""The command line with small ranges and frequent flushes, so that a kill finds it half-way."""

from __future__ import annotations

import sys

from rwkv_cli.cli.app import leave, run
from rwkv_cli.hub import patience, transfer

if __name__ == "__main__":
    transfer.SMALLEST, transfer.SAVE_EVERY = 64 << 10, 0.02
    patience.FIRST = 0.05
    leave(run(sys.argv[1:]))
