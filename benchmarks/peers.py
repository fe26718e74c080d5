"""Compare this program with its peers on one machine, in one run, in turn.

`python benchmarks/peers.py --llama-bin DIR [--record NAME]`

Every engine runs in processes of its own, at its best settings, on the same weights (see
synthetic.py), one after the other and all of them once a round, so that a slow minute of the
machine hits all alike. Medians count; ratios of medians are compared with the targets. The
machine's read bandwidth and arithmetic peaks are measured in every round.

Peers: llama.cpp (its programs, built from the sources in the package llama-cpp-python: llama-bench,
llama-batched-bench, llama-completion, llama-quantize), the package `rwkv`, transformers' RWKV-4.
One that is not there is left out with a line.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import all_engines, choose
from processes import FailedError, run, wait_until_quiet, warm
from report import Report
from shapes import MODELS, default_folder
from task import GREEDY, RUNNERS, Engine, Task

from rwkv_cli.bench.machine import Watch

NAMES = (*MODELS, "demo")
WHATS = ("decode", "prefill", "batch", "start")
BIG = 1024  # width above which fewer tokens say enough


@dataclass(frozen=True)
class Job:
    """One engine on one task of one model."""

    model: str
    engine: Engine
    task: Task
    file: Path = field(compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What its values are kept under."""
        return self.model, self.engine.name, self.task.name


def tasks(model: str, whats: Iterable[str]) -> Iterator[Task]:
    """List what is measured of a model."""
    if model == "demo":
        yield Task("start", 1)
        return
    big = MODELS[model].width > BIG
    for what in whats:
        if what == "batch":
            yield Task("batch", 24 if big else 48, 8)
            if not big:
                yield Task("batch", 32, 32)
        else:
            yield Task(what, {"prefill": 512, "start": 1}.get(what, 48 if big else 128))


def plan(args: argparse.Namespace, engines: list[Engine]) -> list[Job]:
    """List the jobs of a round, model after model; writes the files they need."""
    jobs = []
    for model in args.models:
        wanted = [*tasks(model, args.what), Task("greedy", GREEDY)]
        for engine in engines:
            mine = [task for task in wanted if engine.does(model, task)]
            try:
                file = engine.file(model, args.folder) if mine else None
            except subprocess.CalledProcessError:
                tell(f"skipped: {engine.name} on {model}: its file could not be made")
                continue
            if file:
                jobs += [Job(model, engine, task, file) for task in mine]
    return jobs


def check(jobs: list[Job], report: Report, threads: int) -> list[Job]:
    """Compare the greedy texts of engines in 16 bits; give the other jobs."""
    for job in jobs:
        if job.task.what == "greedy":
            text = attempt(job, report, threads)
            if text is not None:
                report.texts.setdefault(job.model, {})[job.engine.name] = text.hex()
    return [job for job in jobs if job.task.what != "greedy"]


def attempt(job: Job, report: Report, threads: int) -> Any:
    """Run a job and give its value; None, and a line, when it failed."""
    try:
        done = run(job.engine.command(job.file, job.task), threads)
        value = job.engine.read(done, job.task)
    except (FailedError, ValueError, KeyError, IndexError) as error:
        tell(f"failed: {' '.join(job.key)}: {error}")
        report.failed[" ".join(job.key)] = str(error)
        return None
    report.saw(job.key, done)
    return value


def peaks(threads: int) -> dict[str, float | None]:
    """Measure what the machine gives at best."""
    command = [sys.executable, str(RUNNERS / "peaks.py"), str(threads)]
    found: dict[str, float | None] = json.loads(run(command, threads).output)
    return found


def measure(jobs: list[Job], report: Report, args: argparse.Namespace) -> None:
    """Run all jobs once a round; what was measured stays when this is interrupted."""
    threads = args.threads
    lost: set[tuple[str, str, str]] = set()
    for number in range(args.rounds):
        wait_until_quiet(args.patience)
        report.peaks.append(peaks(threads))
        for job in jobs:
            if job.key in lost:
                continue
            warm(job.file)
            wait_until_quiet(args.patience)
            # Bandwidth drifts on shared machines: a share is of what there was just before.
            read = peaks(threads)["read"] if job.task.what == "decode" else None
            value = attempt(job, report, threads)
            if value is None:
                lost.add(job.key)
                continue
            report.values.setdefault(job.key, []).append(float(value))
            if read:
                report.reads.setdefault(job.key, []).append(read)
            unit = "s" if job.task.what == "start" else "tok/s"
            tell(f"round {number + 1}: {' '.join(job.key)}: {value:.2f} {unit}")


def tell(line: str) -> None:
    """Say on stderr what goes on."""
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--folder", type=Path, default=default_folder(), help="of the models")
    parser.add_argument("--models", type=names, default=NAMES, help="with commas between")
    parser.add_argument("--what", type=names, default=WHATS, help="with commas between")
    parser.add_argument("--engines", type=names, default=[""], help="parts of their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for other programs, a job"
    )
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's programs")
    parser.add_argument("--record", metavar="NAME", help="write benchmarks/records/NAME.md, .json")
    args = parser.parse_args()
    for flag, known in (("models", NAMES), ("what", WHATS)):
        unknown = set(getattr(args, flag)) - set(known)
        if unknown:
            parser.error(f"--{flag}: {unknown.pop()!r} is none of {', '.join(known)}")
    return args


def main() -> None:
    """Measure, print, record."""
    args = parse()
    every = all_engines(args.threads, args.llama_bin)
    named = [e for e in every if any(part in e.name for part in args.engines)]
    report = Report(args.threads, args.rounds)
    jobs = plan(args, choose(named, tell))
    for job in jobs:
        report.add_file(job.model, job.engine.name, job.file)
    watch = Watch()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        jobs = check(jobs, report, args.threads)
        measure(jobs, report, args)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # some senders send it twice
        tell("interrupted: what follows is what was measured until then")
    report.busy = watch.so_far().to_json()
    print(report.markdown())
    if args.record:
        report.write(args.record)


if __name__ == "__main__":
    main()
