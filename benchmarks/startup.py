"""Measure what a user waits for: start-up of commands, loading, a drawn token, resuming a state.

`python benchmarks/startup.py [--record]` prints a table; with --record it also writes it, with
command, commit and machine, to benchmarks/records/. The processor's time counts all threads, also
those that only wait for work; unlike the clock's it says something on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rwkv_cli
from rwkv_cli.sampling import Penalties, Sampling, draw, uniform

ROOT = Path(__file__).resolve().parents[1]
RWKV = str(Path(sys.executable).with_name("rwkv"))
VOCAB = 65_536


@dataclass(frozen=True)
class Timing:
    """Milliseconds of the clock, sorted, and those of the processor, of this process and others
    that it has waited for.
    """

    clock: list[float]
    processor: list[float]


def milliseconds(work: Callable[[], object], count: int) -> Timing:
    """Time a piece of work again and again, after one run that is not counted."""
    work()
    clock, processor = [], []
    for _ in range(count):
        spent, start = _spent(), time.perf_counter()
        work()
        clock.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (_spent() - spent))
    return Timing(sorted(clock), sorted(processor))


def _spent() -> float:
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def process(*command: str) -> Callable[[], object]:
    """Run a whole process, its output thrown away."""
    return lambda: subprocess.run(
        command, check=True, capture_output=True, stdin=subprocess.DEVNULL
    )


def first_byte(*command: str) -> Callable[[], object]:
    """Run a process until the first byte of its output is there, and end it."""

    def work() -> None:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as running:
            assert running.stdout is not None
            running.stdout.read(1)
            running.kill()

    return work


def prompt(*command: str) -> Callable[[], object]:
    """Run a chat in a terminal of its own until its prompt is there."""

    def work() -> None:
        master, slave = os.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        chat = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        shown = b""
        while b"1m>" not in shown:  # the prompt is bold
            shown += os.read(master, 1 << 16)
        chat.kill()
        chat.wait()
        os.close(master)

    return work


def sampler() -> Callable[[], object]:
    """Draw a token from 65,536 flat random logits with 500 penalized tokens.

    A model is loaded and has read something first, as in use: in a process that never freed
    large memory, every temporary of 256 KiB is fetched from the system anew, which takes 0.6 ms.
    """
    model = rwkv_cli.load("demo")
    model.prefill(list(range(1, 300)))
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, VOCAB).astype(np.float32)
    penalties, sampling = Penalties(), Sampling(temperature=0.8, top_p=0.9, top_k=500)
    for token in rng.integers(1, VOCAB, 500):
        penalties.record(int(token), b"x", 0.996)

    def work() -> None:
        row = logits.copy()
        penalties.apply(row, sampling)
        draw(row, sampling, uniform(1, 0, 7))

    return work


def rows(folder: Path) -> list[tuple[str, Timing]]:
    """Take all measurements."""
    state = str(folder / "s.rwkvstate")
    subprocess.run(
        [RWKV, "generate", "-q", "-N", "1", "--save-state", state, "Once upon a time"],
        check=True,
        capture_output=True,
    )
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "python -c 'import torch'": (sys.executable, "-c", "import torch"),
        "rwkv --version": (RWKV, "--version"),
        "rwkv --help": (RWKV, "--help"),
        "rwkv generate --help": (RWKV, "generate", "--help"),
        "rwkv info demo": (RWKV, "info", "demo"),
        "rwkv generate -N 1": (RWKV, "generate", "-q", "-N", "1", "Once upon a time"),
        "rwkv generate -N 1 --state": (RWKV, "generate", "-q", "-N", "1", "--state", state),
    }
    quick = [(name, milliseconds(process(*c), 15)) for name, c in list(commands.items())[:6]]
    slow = [(name, milliseconds(process(*c), 9)) for name, c in list(commands.items())[6:]]
    written = first_byte(RWKV, "generate", "-q", "-N", "500", "Once upon a time")
    slow.append(("rwkv generate, its first byte", milliseconds(written, 9)))
    chat = ("rwkv chat, its prompt", milliseconds(prompt(RWKV, "chat", "--no-save"), 9))
    return [*quick, *slow, chat, ("draw from 65,536 logits", milliseconds(sampler(), 200))]


def table() -> str:
    """Write the measurements as a Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RWKV_DATA_DIR"] = folder
        measured = rows(Path(folder))
    base = statistics.median(measured[0][1].clock)
    lines = [
        "| what | median ms | min | max | x python | processor ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, taken in measured:
        times, processor = taken.clock, statistics.median(taken.processor)
        middle = statistics.median(times)
        lines.append(
            f"| `{name}` | {middle:.2f} | {times[0]:.2f} | {times[-1]:.2f} | {middle / base:.1f} "
            f"| {processor:.2f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Describe the machine in one line."""
    model = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        found = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        model = found[0].split(":")[1].strip() if found else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, Python {python}, load {load:.1f} at the start"


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    where = machine()
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    text = f"{where}\n\n{table()}\n"
    print(text)
    if args.record:
        record = ROOT / "benchmarks" / "records" / "startup.md"
        command = "python benchmarks/startup.py --record"
        _, heading, rest = record.read_text().partition("\n## ")  # what people wrote stays
        head = f"# Start-up\n\n`{command}`, commit {commit or 'unknown'}\n\n{text}"
        record.write_text(head + heading + rest)


if __name__ == "__main__":
    main()
