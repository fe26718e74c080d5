"""The reference package's logits, from a process of its own: it reads its version from the
environment at import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

_PROGRAM = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from rwkv.model import RWKV
for path, tokens, out in json.load(sys.stdin):
    model = RWKV(model=path.removesuffix(".pth"), strategy="cpu fp32")
    state, rows = None, []
    for token in tokens:
        logits, state = model.forward([token], state)
        rows.append(logits.float().numpy().copy())
    np.save(out, np.stack(rows))
"""


def reference_logits(jobs: list[tuple[Path, list[int]]], *, v7: bool) -> list[np.ndarray]:
    """Feed tokens one by one to each .pth: a (T, V) float32 array a job."""
    outs = [path.with_suffix(".logits.npy") for path, _ in jobs]
    plan = [[str(p), t, str(out)] for (p, t), out in zip(jobs, outs, strict=True)]
    env = {**os.environ, "RWKV_V7_ON": "1" if v7 else "0", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        input=json.dumps(plan),
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"the reference package failed: {done.stderr[-2000:]}")
    return [np.load(out) for out in outs]
