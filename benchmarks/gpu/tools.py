"""Other programs: running them within a time, and the tests of the kernels."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as Xml
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpu.record import Deadline, Unit, Values

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
# What the tests that can run on a card are known by: they reach the kernels through these modules.
_DOORS = ("from oracle.cuda_rows", "from oracle.cuda_draws", "from oracle.cuda_device")
_SIDE_BY_SIDE = 4  # files of tests: most of their time is that of starting, and of the reference
_running: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class Done:
    """What came of a program.

    Attributes:
        status: Its exit status; None when it was ended for taking too long.
        output: What it printed, errors included.
    """

    status: int | None
    output: str


def run(command: Sequence[str | Path], seconds: float, **more: str) -> Done:
    """Run a program, with all that it starts, for some seconds at most."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    try:
        output, _ = process.communicate(timeout=max(1.0, seconds))
        return Done(process.returncode, output)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Done(None, output)
    finally:
        _running.discard(process)


def end_all() -> None:
    """End every program that still runs, with all that it started."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def found(name: str) -> str | None:
    """Find a program of the CUDA toolkit."""
    return shutil.which(name) or next(
        (
            str(path)
            for pattern in (f"/usr/local/cuda*/bin/{name}", f"/opt/nvidia/*/*/{name}")
            for path in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
        ),
        None,
    )


# --- the tests ------------------------------------------------------------------------------------


def kernel_units(folder: Path, deadline: Deadline) -> list[Unit]:
    """Run the tests of the kernels on the card, a unit for each file; some files side by side."""
    names = card_tests()

    @cache
    def begun() -> dict[str, Future[str]]:
        pool = ThreadPoolExecutor(_SIDE_BY_SIDE)
        return {name: pool.submit(_report, name, folder, deadline) for name in names}

    def waited(name: str) -> Callable[[], Values]:
        return lambda: verdicts(begun()[name].result())

    return [Unit(name, waited(name), 2) for name in names]


def card_tests() -> list[str]:
    """List the files of tests that can run on a card, those of single kernels first."""
    folders = TESTS / "native", TESTS / "engine"
    places = [path for folder in folders for path in sorted(folder.glob("test_cuda*.py"))]
    found = [p for p in places if any(door in p.read_text(encoding="utf-8") for door in _DOORS)]
    # That one tries the way to a card itself, without one.
    return [p.relative_to(TESTS).as_posix() for p in found if p.stem != "test_cuda_real"]


def _report(name: str, folder: Path, deadline: Deadline) -> str:
    """Run a file of tests on the card, and give pytest's report."""
    missing = [m for m in ("pytest", "hypothesis") if importlib.util.find_spec(m) is None]
    if missing:
        raise RuntimeError(f"the tests need {' and '.join(missing)}, which is not installed")
    report = folder / (Path(name).stem + ".xml")
    how = ["-m", "pytest", "--cuda", f"tests/{name}", f"--junitxml={report}", "-W", "default"]
    how += ["-p", "no:cacheprovider", "--tb=short", "--maxfail=20"]
    done = run([sys.executable, *how], deadline.left())
    if not report.exists():
        slow = "it took too long; until then: " if done.status is None else ""
        raise RuntimeError(slow + done.output.strip()[-500:])
    return report.read_text(encoding="utf-8")


def verdicts(report: str) -> Values:
    """Read a report of pytest's: the counts, and each failure."""
    suite = Xml.fromstring(report).find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    yield "passed", counts["tests"] - bad - counts["skipped"]
    yield "skipped", counts["skipped"]
    yield "failed", bad
    yield "seconds", float(suite.get("time", 0))
    for case in suite.iter("testcase"):
        for kind in ("failure", "error", "skipped"):
            why = case.find(kind)
            if why is not None and (kind != "skipped" or counts["skipped"] < 5):
                said = " ".join((why.get("message") or why.text or "").split())
                yield f"{kind}: {case.get('name')}", said[:300]
