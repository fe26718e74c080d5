"""The demo corpus: an endless, seeded mix of stories and chats; knows no tokens and no model.

Run `python demo/corpus.py --seed 1 --count 20` to read samples.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the folder above must be importable
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.chats import Chats
from demo.stories import Stories

HERE = Path(__file__).resolve().parent
SHARE_OF_STORIES = 0.55


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end, the same ones for the same seed, without an end marker."""
    rng = random.Random(seed)
    stories = Stories(HERE / "stories.txt")
    chats = Chats(HERE / "chats.txt", stories)
    while True:
        is_story = rng.random() < SHARE_OF_STORIES
        yield stories.write(rng) if is_story else chats.write(rng)


def main() -> None:
    """Print samples, parted by a blank line and a rule."""
    parser = argparse.ArgumentParser(description="Print samples of the demo corpus.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    for _, document in zip(range(arguments.count), documents(arguments.seed), strict=False):
        sys.stdout.write(document + "\n\n---\n")


if __name__ == "__main__":
    main()
