"""Measure what a precision costs: bits per token on text that the model was not trained on.

`python benchmarks/quality.py [MODEL TEXT]... [--record]`

Without arguments the demo model reads documents of its own kind, drawn with a seed that its
training did not use. A MODEL of another kind is given with a TEXT file to read; one whose
vocabulary is 256 reads bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for demo/

from demo.corpus import documents  # noqa: E402
from rwkv_cli.engine.load import load_model  # noqa: E402
from rwkv_cli.engine.modelfile import DEMO  # noqa: E402
from rwkv_cli.engine.strategy import Strategy  # noqa: E402

DTYPES = ("fp32", "bf16", "fp16", "int8", "int4")
TOKENS = 4000
UNSEEN = 987_654_321  # a seed of documents


def bits(path: Path, text: bytes, dtype: str) -> tuple[float, int]:
    """Give the mean bits of a token, and the number of tokens."""
    model = load_model(path, Strategy("cpu", dtype))
    tokens, state = model.tokenizer.encode(text)[:TOKENS], model.zero_state()
    total = 0.0
    for token, following in pairwise(tokens):
        logits = model.advance([token], state).astype(np.float64)
        top = logits.max()
        total += np.log(np.exp(logits - top).sum()) + top - logits[following]
    return total / np.log(2) / (len(tokens) - 1), len(tokens) - 1


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", type=Path, metavar="MODEL TEXT")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/quality.md")
    args = parser.parse_args()
    works = [(DEMO, "\n\n".join(islice(documents(UNSEEN), 200)).encode())]
    works += [
        (model, text.read_bytes())
        for model, text in zip(args.pairs[::2], args.pairs[1::2], strict=True)
    ]
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    lines = [
        f"Bits per token on unseen text; commit {commit}; `python benchmarks/quality.py`.",
        "",
        "| model | tokens | " + " | ".join(DTYPES) + " |",
        "|---|---|" + "---|" * len(DTYPES),
    ]
    for path, text in works:
        found = [bits(path, text, dtype) for dtype in DTYPES]
        row = " | ".join(f"{value:.4f}" for value, _ in found)
        lines.append(f"| {path.stem} | {found[0][1]} | {row} |")
    print("\n".join(lines))
    if args.record:
        (ROOT / "benchmarks" / "records" / "quality.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
