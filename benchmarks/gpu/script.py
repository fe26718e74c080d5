"""Runs the parts of the GPU script, each in a process of its own, and keeps the record."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu import tools, watchers
from gpu.record import Deadline, Record, Unit, run_all
from gpu.table import markdown

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
SCRIPT = BENCHMARKS / "gpu.py"
STAND_INS = Path(__file__).with_name("stand_ins")
# The parts in their order, and the share of the time of each, in seconds of the nine minutes.
PARTS = {
    "facts": 35, "kernels": 90, "equality": 60, "speed": 175, "batches": 45, "profile": 50,
    "peer": 60, "sanitize": 70,
}  # fmt: skip
LIMIT = 520  # seconds, with what is left of nine minutes for the start
_NEED_LIBRARY = {"kernels", "equality", "sanitize"}
_AGAIN = 75  # exit status of a part whose card no longer answers, and that has units left
_RESTARTS = 6
_GRACE = 8  # seconds after its time, before a part is ended


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="gpu.py", description="Measure and check the CUDA kernels on this machine's card."
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; else all")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args(given)
    for part in found.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}; there are {', '.join(PARTS)}")
    found.parts = [part for part in PARTS if part in (found.parts or PARTS)]
    return found


def main() -> None:
    """Run what is asked for."""
    args = arguments()
    if args.child:
        sys.exit(run_part(args.parts[0], args.out, args.limit))
    prepare_environment()
    Run(args.out, args.limit).parts(args.parts)


def prepare_environment() -> None:
    """Let every process find the package in this checkout, and a cache."""
    paths = [str(ROOT)]
    if importlib.util.find_spec("platformdirs") is None:
        paths.append(str(STAND_INS))
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([given] if given else [])])
    os.environ.setdefault("RWKV_CACHE_DIR", str(Path(tempfile.gettempdir()) / "rwkv-gpu-cache"))
    os.environ.setdefault("PYTHONUNBUFFERED", "1")


class Run:
    """A run of some parts.

    Args:
        out: Folder of the record.
        limit: Seconds for everything.
    """

    def __init__(self, out: Path, limit: float) -> None:
        self.out, self.deadline = out, Deadline(limit)
        out.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="rwkv-gpu-"))
        self.data: dict[str, dict[str, Any]] = {}
        self._beside: dict[str, subprocess.Popen[bytes]] = {}

    def parts(self, names: Sequence[str]) -> None:
        """Run parts one after the other; the record is whole after each, and now and then within
        one.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._begin_beside(names)
            for index, name in enumerate(names):
                weights = [PARTS[later] for later in names[index:]]
                self._part(name, self.deadline.left() * weights[0] / sum(weights))
        except KeyboardInterrupt:
            tell("interrupted: what follows is what was found until then")
        finally:
            for process in self._beside.values():
                process.kill()
            self.collect()
            shutil.rmtree(self.folder, ignore_errors=True)
        print(markdown(self.data), flush=True)

    def _begin_beside(self, names: Sequence[str]) -> None:
        """Begin what compilers need time for, while parts are at work that do not need it."""
        if _NEED_LIBRARY & set(names):
            code = (
                "from rwkv_cli.native import build, library as l; l.is_available() or build.build()"
            )
            with (self.folder / "library.log").open("wb") as log:
                self._beside["library"] = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        if "peer" in names:
            from gpu.peer_build import begin_compiling

            process = begin_compiling(self.folder)
            if process:
                self._beside["peer"] = process

    def _await(self, name: str, seconds: float) -> None:
        """Wait for what was begun beside, and say how it ended."""
        process = self._beside.pop(name, None)
        if process is None:
            return
        try:
            status = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            shutil.rmtree(self.folder / name, ignore_errors=True)  # with a lock that would stay
            status = -1
        if status:
            log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            tell(f"{name}: did not compile ({status}): {' '.join(log.split())[-400:]}")

    def _part(self, name: str, seconds: float) -> None:
        end = Deadline(seconds)
        tell(f"{name}: {seconds:.0f} s")
        if name in _NEED_LIBRARY:
            self._await("library", seconds)
        if name == "peer":
            self._await("peer", seconds / 2)
        for _ in range(_RESTARTS):
            before = self._tried(name)
            status = self._once(name, end)
            self.collect()
            if status == 0 or end.left() < 5:
                return
            if self._tried(name) == before:
                log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                self._note(name, f"it ended with {status}: {' '.join(log.split())[-800:]}")
                return
            tell(f"{name}: once more, without what failed")

    def _once(self, name: str, end: Deadline) -> int:
        """Run a part's process to its end or to that of its time."""
        command = [sys.executable, SCRIPT, name, "--child", "--out", self.folder]
        command += ["--limit", str(end.left())]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                while process.poll() is None:
                    time.sleep(0.5)
                    self.collect()
                    if end.left() < -_GRACE:
                        tell(f"{name}: ended for taking too long")
                        break
            finally:
                end_all(process)
        return process.returncode

    def _tried(self, name: str) -> set[str]:
        record = self.data.get(name, {})
        return {*record.get("seconds", ()), *record.get("failed", ()), *[record.get("begun")]}

    def _note(self, name: str, why: str) -> None:
        """Keep why a part did nothing."""
        record = Record(self.folder / f"{name}.json")
        record.failed["the part"] = why
        record.write()
        tell(f"{name}: {why}")
        self.collect()

    def collect(self) -> None:
        """Write what the parts have found so far."""
        for name in PARTS:
            path = self.folder / f"{name}.json"
            if path.exists():
                self.data[name] = json.loads(path.read_text(encoding="utf-8"))
        texts = {"gpu.json": json.dumps(self.data, indent=1), "gpu.md": markdown(self.data)}
        for file, text in texts.items():
            temporary = self.out / f"{file}.part"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.out / file)


def end_all(process: subprocess.Popen[bytes]) -> None:
    """End a part that still runs: kindly first, so that it ends what it has started itself."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)


def run_part(name: str, folder: Path, seconds: float) -> int:
    """Run a part in this process; gives its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    deadline = Deadline(seconds)
    units, well = units_of(name, folder, deadline)
    record = Record(folder / f"{name}.json")
    try:
        return 0 if run_all(units, record, deadline, well) else _AGAIN
    except KeyboardInterrupt:
        tools.end_all()
        os._exit(1)  # threads that wait for what has been ended are not to be waited for


def units_of(name: str, folder: Path, deadline: Deadline) -> tuple[list[Unit], Callable[[], bool]]:
    """List a part's units, and give what tells whether the card still answers."""
    if name == "kernels":
        return tools.kernel_units(folder, deadline), lambda: True
    if name == "sanitize":
        from rwkv_cli.native.cuda.structures import signatures

        return watchers.sanitizer_units(list(signatures()), deadline), lambda: True
    from gpu import batches, equality, facts, peer, profile, speed
    from gpu.cards import RealCards, well

    cards = RealCards()
    made = {
        "facts": lambda: facts.units(cards),
        "equality": lambda: equality.units(cards),
        "speed": lambda: speed.units(cards),
        "batches": lambda: batches.units(cards),
        "profile": lambda: [*profile.units(cards)[:3], *watchers.profiler_units(deadline),
                            *profile.units(cards)[3:]],
        "peer": lambda: peer.units(cards, folder, deadline),
    }  # fmt: skip
    return made[name](), well


def tell(line: str) -> None:
    """Say on stderr what goes on."""
    print(line, file=sys.stderr, flush=True)
