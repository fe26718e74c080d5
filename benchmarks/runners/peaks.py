"""Measure what the machine gives at best with a number of threads, as JSON."""

from __future__ import annotations

import json
import sys

from rwkv_cli.native.measure import ARITHMETIC, arithmetic_peak, read_bandwidth
from rwkv_cli.native.pool import Pool


def main() -> None:
    """Take the number of threads from argv."""
    pool = Pool(int(sys.argv[1]))
    peaks = {kind: arithmetic_peak(pool, kind) for kind in ARITHMETIC}
    print(json.dumps({"read": read_bandwidth(pool, 1 << 30, 1.0), **peaks}))


if __name__ == "__main__":
    main()
