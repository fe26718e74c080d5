"""Run the package `rwkv` on a model: `peer_child.py FILE.pth`. Prints tokens a second, as JSON.

How it runs is in the environment: RWKV_V7_ON, RWKV_CUDA_ON, RWKV_JIT_ON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

STEPS, WARM, LENGTH = 40, 12, 1024  # TorchScript settles in the first calls


def seconds(run: Callable[[], Any]) -> float:
    """Time something on the card from outside."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    """Take the file from argv."""
    torch.set_grad_enabled(False)
    from rwkv.model import RWKV

    model = RWKV(model=str(Path(sys.argv[1]).with_suffix("")), strategy="cuda fp16")
    tokens = torch.randint(1, 50_000, (LENGTH,)).tolist()
    state = None

    def decode(count: int) -> None:
        nonlocal state
        for token in tokens[:count]:
            logits, state = model.forward([token], state)
            int(logits.argmax())  # whoever generates has to look at it

    decode(WARM)
    found = {
        "decode tok/s": round(STEPS / median(seconds(lambda: decode(STEPS)) for _ in range(3)), 1)
    }
    print("measured: " + json.dumps(found), flush=True)
    for length in (512, LENGTH):
        for _ in range(3):
            model.forward(tokens[:length], None)
        took = median(seconds(lambda n=length: model.forward(tokens[:n], None)) for _ in range(3))
        found[f"prefill {length} tok/s"] = round(length / took, 1)
        print("measured: " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
