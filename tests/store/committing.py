"""A process that commits turns to a conversation and tells each that is kept, until it ends.

python committing.py ROOT CHAT SECONDS [--states]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from store.making import begin, library, state, turn

from rwkv_cli.errors import NotFoundError


def tell(chat: str, step: str) -> None:
    sys.stdout.write(f"{chat} {step}\n")
    sys.stdout.flush()


def main() -> None:
    root, chat, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    whole = library(root)
    try:
        log = whole.open(chat)
    except NotFoundError:
        log = whole.new()
        log.plan(begin(log.id))
    for step in log.recover():
        tell(log.id, step.id)
    end, seed = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        seed += 1
        step = turn(log.tree.head, seed, size=50)
        log.draft(step)
        log.add(step)
        tell(log.id, step.id)
        log.save_state(step.id, "end", state(log.tree.tokens()))
        if seed % 5 == 0:
            log.move(step.parent)


if __name__ == "__main__":
    main()
