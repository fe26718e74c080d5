"""What batch.py measured, as a table beside what the machine could do at best."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from batch_rows import PREFIX
from shapes import HEAD, Shape

# Bytes of a weight with its share of a scale.
BYTES = {"int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32, "bf16": 2.0}
Values = dict[tuple[str, str], list[float]]  # by what was measured, and of which kind or width


def limit(shape: Shape, dtype: str, width: int, peaks: dict[str, float]) -> float:
    """Tell how many seconds a step of so many rows of RWKV-7 takes at least, if this machine's
    memory and its multiply-adds, as they were measured, are both at work all the time.
    """
    c, layers = shape.width, shape.layers
    ranks = sum(shape.ranks.values())
    low = layers * 2 * c * ranks
    value = layers * c * shape.ffn
    whole = layers * (4 * c * c + c * shape.ffn) + shape.vocab * c
    wkv = layers * c * HEAD
    # Weights in 8 bits meet inputs of 16: half as many a second as of 8. Floats are multiplied as
    # such, inputs that are zero are skipped, and a state takes four multiply-adds a number.
    dots = peaks["int8"] / 2 if dtype in ("int8", "int4") else peaks["fp32"]
    floats = low + value * (1 - shape.zeros) + 4 * wkv
    arithmetic = 2 * width * (whole / dots + floats / peaks["fp32"])
    traffic = (whole + value + low) * BYTES[dtype] + width * 4 * (2 * wkv + shape.vocab)
    return max(arithmetic, traffic / peaks["read"])


def report(values: Values, where: str, peer: str, rows: int) -> Iterator[str]:
    """Write the figures as Markdown, line by line.

    Args:
        values: Them.
        where: The machine and the model.
        peer: Llama.cpp's precision.
        rows: Of a file.
    """
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    shown = " ".join("DIR" if Path(arg).is_absolute() else arg for arg in sys.argv[1:])
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    yield from ("# batch", "", f"`python benchmarks/batch.py {shown}`", "")
    yield f"{stamp}, commit {commit}; {where}. Medians of all rounds, the spread in brackets."
    yield ""
    yield from _widths(values, peer)
    if ("rows", "all") in values and ("one by one", "all") in values:
        yield f"{rows:,} rows of mixed lengths, and every tenth of them one after another (`-j 1`);"
        yield "what starting takes is taken off both. A row alone reads its prompt many tokens at a"
        yield from ("time already, so only decoding gains: less than the widths above.", "")
        yield "| tokens a second | all rows | one by one | ratio |"
        yield "| --- | ---: | ---: | ---: |"
        for kind, name in (("all", "read and generated"), ("generated", "generated")):
            keys = ("rows", kind), ("one by one", kind)
            cells = [name, *(_cell(values, key) for key in keys), _ratio(values, *keys)]
            yield f"| {' | '.join(cells)} |"
        yield ""
    if ("own prefix", "rows") in values:
        keys = ("shared prefix", "rows"), ("own prefix", "rows")
        yield f"{rows:,} rows that begin with the same {PREFIX:,} words:"
        yield f"{_cell(values, keys[0], 1)} rows a second."
        yield f"Rows as long that share nothing: {_cell(values, keys[1], 2)}."
        yield f"The ratio is {_ratio(values, *keys)}."


def _widths(values: Values, peer: str) -> Iterator[str]:
    widths = [kind for what, kind in values if what == "limit"]
    if not widths:
        return
    peaks = {kind: median(found) / 1e9 for (what, kind), found in values.items() if what == "peak"}
    yield f"The machine at best: reads {peaks['read']:.1f} GB/s; {peaks['fp32']:.0f} G operations/s"
    yield from (f"in fp32, {peaks['int8']:.0f} in int8.", "")
    head = ["width", "tok/s", "with drawing", f"llama.cpp {peer}", "ratio", "with drawing"]
    yield f"| {' | '.join([*head, 'limit', 'share of it'])} |"
    yield f"| {' | '.join(['---:'] * 8)} |"
    for width in widths:
        ours, drawn, llama, least = ((x, width) for x in ("ours", "ours, drawn", "llama", "limit"))
        cells = [_cell(values, key) for key in (ours, drawn, llama)]
        cells += [_ratio(values, ours, llama), _ratio(values, drawn, llama)]
        cells += [_cell(values, least), _ratio(values, ours, least)]
        yield f"| {' | '.join([width, *cells])} |"
    yield ""


def _ratio(values: Values, above: tuple[str, str], below: tuple[str, str]) -> str:
    """Give the quotient of two medians; nothing when one was not measured."""
    if above not in values or below not in values:
        return ""
    return f"{median(values[above]) / median(values[below]):.2f}"


def _cell(values: Values, key: tuple[str, str], digits: int = 0) -> str:
    """Give a median and its spread."""
    found = values.get(key)
    if not found:
        return ""
    middle, least, most = (f"{f(found):,.{digits}f}" for f in (median, min, max))
    return f"{middle} ({least}–{most})"
