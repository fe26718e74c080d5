"""What other programs look at: `child.py judge VERSION DTYPE` compares the kernels with torch on a
model of two layers, `child.py passes SHAPE DTYPE` runs some passes of four layers.

Nothing is put into graphs, where those programs see less.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # who imports it finds the same in another place
    sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from gpu.cards import RealCards
from gpu.models import SHAPES, random_weights
from rwkv_cli.arch.spec import get_arch
from rwkv_cli.engine.cuda.device import CudaDevice
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.selftest import judge
from rwkv_cli.native.cuda.loading import TYPES_OF


class Eager(CudaDevice):
    """A card on which every launch is one of its own."""

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        return run


def main() -> None:
    """Take what is to be done from argv."""
    what, name, dtype = sys.argv[1:]
    cards = RealCards()
    device = Eager(cards.place, cards.kernels(TYPES_OF[dtype]))
    if what == "judge":
        verdict = judge(device, get_arch(name), 64, dtype)
        print(f"judged: {verdict.why or 'agrees with torch'}", flush=True)
    else:
        shape = replace(SHAPES[name], layers=4)
        engine = CudaEngine(device, random_weights(shape, dtype, cards.place))
        state = engine.zero_state()
        engine.prefill(list(range(1, 257)), state)
        engine.decode([5], [state])
    cards.wait()


if __name__ == "__main__":
    main()
