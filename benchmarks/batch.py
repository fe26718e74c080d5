"""Measure decoding many sequences side by side, beside llama.cpp's batched decoding and beside what
the machine can do; and whole files of rows, beside one row after another.

`python benchmarks/batch.py --llama-bin DIR [--what widths,rows,prefix] [--record NAME]`

Everything runs in processes of its own, one after the other and all of them once a round, so that
a slow minute of the machine hits all alike; medians count. The model is one of peers.py.
Llama.cpp's program draws nothing (its tokens are random), so ours is told with and without.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batch_report import Values, limit, report
from batch_rows import ROWS, prefixed, rows_of, write_rows
from engines import Ours
from llama import Llama
from processes import FailedError, run, wait_until_quiet, warm
from shapes import MODELS, default_folder
from startup import machine
from task import RUNNERS, Task

RECORDS = Path(__file__).parent / "records"
KINDS = {"int8": "Q8_0", "int4": "Q4_0", "bf16": "BF16"}


def widths(args: argparse.Namespace, values: Values) -> None:
    """Measure one round of decoding at every width, and the machine before it."""
    found = run([sys.executable, str(RUNNERS / "peaks.py"), str(args.threads)], args.threads)
    peaks = {name: float(peak or 0) for name, peak in json.loads(found.output).items()}
    for name, peak in peaks.items():
        note(values, "peak", name, peak)
    for width in args.widths:
        steps = max(8, min(48, args.tokens // width))
        least = limit(MODELS[args.model], args.dtype, width, peaks)
        note(values, "limit", str(width), width / least)
        fed, chosen = ours(args, width, steps)
        note(values, "ours", str(width), width * steps / fed)
        note(values, "ours, drawn", str(width), width * steps / (fed + chosen))
        rate = theirs(args, width, steps)
        if rate is not None:
            note(values, "llama", str(width), rate)
        last = [f"{key[0]} {v[-1]:.0f}" for key, v in values.items() if key[1] == str(width)]
        tell(f"width {width}: {', '.join(last)}")


def ours(args: argparse.Namespace, width: int, steps: int) -> tuple[float, float]:
    """Give the seconds that so many steps of this program take: feeding, and drawing."""
    file = Ours(args.dtype, args.threads).file(args.model, args.folder)
    plan = {"model": str(file), "dtype": args.dtype, "threads": args.threads}
    plan |= {"width": width, "steps": steps}
    warm(file)
    wait_until_quiet(args.patience)
    command = [sys.executable, str(RUNNERS / "batched.py"), json.dumps(plan)]
    found = json.loads(run(command, args.threads).output)
    return sum(found["feed"]), sum(found["choose"])


def theirs(args: argparse.Namespace, width: int, steps: int) -> float | None:
    """Give llama.cpp's tokens a second; None without its programs."""
    if args.llama_bin is None:
        return None
    llama, task = (
        Llama(KINDS[args.dtype], args.llama_bin, args.threads),
        Task("batch", steps, width),
    )
    file = llama.file(args.model, args.folder)
    warm(file)
    wait_until_quiet(args.patience)
    return float(llama.read(run(llama.command(file, task), args.threads), task))


def generate(
    args: argparse.Namespace, rows: list[dict[str, Any]], *flags: str
) -> tuple[float, int, int]:
    """Run `rwkv generate` on rows: seconds, tokens of prompts, tokens of answers."""
    file = Ours(args.dtype, args.threads).file(args.model, args.folder)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        write_rows(source, rows)
        command = [
            sys.executable,
            "-m",
            "rwkv_cli",
            "generate",
            "-i",
            str(source),
            "-o",
            str(target),
        ]
        command += ["-m", str(file), "-t", str(args.threads), "--seed", "1", "-q", *flags]
        warm(file)
        wait_until_quiet(args.patience)
        start = time.perf_counter()
        run(command, args.threads)
        took = time.perf_counter() - start
        usage = [json.loads(line)["usage"] for line in target.read_text("utf-8").splitlines()]
    if len(usage) != len(rows):
        raise FailedError(f"{len(rows)} rows gave {len(usage)}")
    return took, sum(u["prompt_tokens"] for u in usage), sum(u["completion_tokens"] for u in usage)


def whole_rows(args: argparse.Namespace, values: Values) -> None:
    """Measure a round of rows of mixed lengths: all of them at once, every tenth one alone. What
    starting takes, the time of a single short row, is taken off both.
    """
    rows = rows_of(args.rows)
    start = generate(args, [{"prompt": " the", "max_tokens": 1}])[0]
    for name, some, flags in (("rows", rows, []), ("one by one", rows[::10], ["-j", "1"])):
        took, read, written = generate(args, some, *flags)
        note(values, name, "all", (read + written) / (took - start))
        note(values, name, "generated", written / (took - start))
        tell(f"{name}: {len(some)} rows, {read} + {written} tokens in {took:.1f} s")


def whole_prefix(args: argparse.Namespace, values: Values) -> None:
    """Measure a round of rows that share a prefix, and of fewer with their own words in front of
    it, so that they share nothing.
    """
    few = max(2, args.rows // 50)
    for name, count in (("shared prefix", args.rows), ("own prefix", few)):
        took, read, written = generate(args, prefixed(count, shared=name == "shared prefix"))
        note(values, name, "rows", count / took)
        tell(f"{name}: {count} rows, {read} + {written} tokens in {took:.1f} s")


def note(values: Values, what: str, kind: str, value: float) -> None:
    """Keep a figure."""
    values.setdefault((what, kind), []).append(value)


def tell(line: str) -> None:
    """Say on stderr what goes on."""
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="of the models")
    parser.add_argument(
        "--model", default="v7-0.1b", choices=[m for m in MODELS if m.startswith("v7")]
    )
    parser.add_argument("--dtype", default="int8", choices=sorted(KINDS))
    parser.add_argument("--what", default="widths,rows,prefix", help="with commas between")
    parser.add_argument("--widths", default="1,8,32,64,128", help="with commas between")
    parser.add_argument(
        "--tokens", type=int, default=1024, help="of all sequences of a width together"
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for other programs"
    )
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's programs")
    parser.add_argument("--record", metavar="NAME", help="write benchmarks/records/NAME.md")
    args = parser.parse_args()
    args.widths = [int(width) for width in args.widths.split(",")]
    return args


def main() -> None:
    """Measure, print, record."""
    args = parse()
    where = f"{machine()}, {args.threads} threads; {args.model}, {args.dtype}"
    values: Values = {}
    parts = {"widths": widths, "rows": whole_rows, "prefix": whole_prefix}
    try:
        for number in range(args.rounds):
            for what in args.what.split(","):
                tell(f"round {number + 1}: {what}")
                parts[what](args, values)
    except KeyboardInterrupt:
        tell("interrupted: what follows is what was measured until then")
    text = "\n".join(report(values, where, KINDS[args.dtype], args.rows)) + "\n"
    print(text)
    if args.record:
        (RECORDS / f"{args.record}.md").write_text(text)


if __name__ == "__main__":
    main()
