"""A process that makes an output row by row, in an order of its own, until it is done or killed.

python finishing.py OUTPUT ROWS SEED PAUSE [--stream] [--errors FILE] [--retry]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from batch.outputs import facts, fails, line, stream_digest, stream_facts

from rwkv_cli.batch import output as module
from rwkv_cli.batch.output import Output

_WINDOW = 16  # rows that are in work at once


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("pause", type=float)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--errors", type=Path)
    parser.add_argument("--retry", action="store_true")
    given = parser.parse_args()
    module._PERIOD = 0.02
    wanted = stream_facts() if given.stream else facts(given.rows)
    with Output(given.output, wanted, errors=given.errors, retry_errors=given.retry) as output:
        sys.stdout.write(f"{len(output.done)}\n")
        sys.stdout.flush()
        _run(output, given)
        output.finish()


def _run(output: Output, given: argparse.Namespace) -> None:
    dice = random.Random(given.seed)
    work: list[int] = []
    for index in range(given.rows):
        output.reached(index + 1, lambda rows=index + 1: stream_digest(rows))
        if index not in output.done:
            work.append(index)
        if len(work) == _WINDOW or index == given.rows - 1:
            dice.shuffle(work)
            rest = 0 if index == given.rows - 1 else _WINDOW // 2
            while len(work) > rest:
                done = work.pop()
                output.add(done, line(done), failed=fails(done))
                time.sleep(dice.random() * given.pause)


if __name__ == "__main__":
    main()
