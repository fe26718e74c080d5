"""Train the built-in demo model: `python -m demo.train` (about an hour on two cores).

The text comes from `corpus.py`, the vocabulary from `tokenizer.py`, the formulas from the tool
itself: the model is trained through the same forward pass that later runs it. Same seed, same
machine, same threads: same file.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from demo.corpus import documents
from demo.model import Params, build, dims, fresh, zero_states

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "rwkv_cli" / "data"
CURVE = ROOT / "docs" / "demo-loss.csv"

END_OF_TEXT = 0
LAYERS, HEADS = 6, 3
ROWS, TIME = (
    16,
    256,
)  # every row starts with a whole document, so that the zero state means a beginning
PEAK_RATE, FINAL_RATE, WARM_UP = 3e-3, 1e-4, 40


def rows(seed: int, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Pack documents into rows of TIME + 1 tokens; a document that does not fit is cut at the end
    of its row.
    """
    row: list[int] = []
    for text in documents(seed):
        row += [*tokenizer.encode(text).ids, END_OF_TEXT]
        if len(row) > TIME:
            yield row[: TIME + 1]
            row = []


def batches(seed: int, tokenizer: Tokenizer) -> Iterator[torch.Tensor]:
    """Give batches of (ROWS, TIME + 1) tokens, shuffled within a window so that
    each is a mixture.
    """
    source, rng = rows(seed, tokenizer), random.Random(seed)
    window: list[list[int]] = []
    while True:
        while len(window) < 16 * ROWS:
            window.append(next(source))
        rng.shuffle(window)
        yield torch.tensor([window.pop() for _ in range(ROWS)])


def rate(step: int, steps: int) -> float:
    """Learning rate: a short linear rise, then half a cosine down."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def optimizer_for(params: Params) -> torch.optim.AdamW:
    """AdamW, with decay on the matrices alone and twice the rate on the decays' offsets (as
    RWKV-LM does).
    """
    decayed = [p for n, p in params.items() if n.endswith(".weight") and p.dim() == 2]
    fast = [p for n, p in params.items() if n.endswith("att.w0")]
    taken = {id(p) for p in (*decayed, *fast)}
    plain = [p for p in params.values() if id(p) not in taken]
    groups = [
        {"params": decayed, "weight_decay": 0.05, "scale": 1.0},
        {"params": fast, "weight_decay": 0.0, "scale": 2.0},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.99), eps=1e-12)


def export(params: Params, path: Path, note: str) -> None:
    """Write the model in fp16, the precision of the packaged file."""
    tensors = {name: p.detach().to(torch.float16).contiguous() for name, p in params.items()}
    metadata = {"rwkv.tokenizer": "demo", "rwkv.template": "demo", "rwkv.note": note}
    save_file(tensors, path, metadata=metadata)


def train(steps: int, seed: int, out: Path) -> None:
    """Run all steps, keeping a loss curve, and export the result."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(DATA / "demo_tokenizer.json"))
    sizes = dims(vocab=tokenizer.get_vocab_size(), layers=LAYERS, heads=HEADS)
    params = fresh(sizes)
    stack, optimizer = build(params, LAYERS), optimizer_for(params)
    source, began, mean = batches(seed, tokenizer), time.monotonic(), 0.0
    with CURVE.open("w", encoding="ascii") as curve:
        curve.write("step,tokens,loss\n")
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * rate(step, steps)
            batch = next(source)
            hidden = stack.hidden(batch[:, :-1], zero_states(sizes, ROWS))
            loss = F.cross_entropy(stack.logits(hidden).flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            mean += loss.item()
            if (step + 1) % 20 == 0:
                curve.write(f"{step + 1},{(step + 1) * ROWS * TIME},{mean / 20:.4f}\n")
                curve.flush()
                seconds = time.monotonic() - began
                sys.stderr.write(
                    f"step {step + 1}/{steps}  loss {mean / 20:.4f}  {seconds:.0f} s\n"
                )
                mean = 0.0
            if (step + 1) % 250 == 0 or step + 1 == steps:
                export(params, out, f"seed {seed}, {step + 1} of {steps} steps")


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=DATA / "demo.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.steps, args.seed, args.out)


if __name__ == "__main__":
    main()
