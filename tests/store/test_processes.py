"""Processes that are killed, and many at once: every turn that was said to be kept is found.

STORE_KILLS=300 STORE_SECONDS=20 python -m pytest tests/store/test_processes.py
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store.making import begin, library, turn

_HERE = Path(__file__).parent
_KILLS = int(os.environ.get("STORE_KILLS", "10"))
_SECONDS = float(os.environ.get("STORE_SECONDS", "1"))
_PROCESSES = 16

_NO_LOCKS = """
#include <stdarg.h>
int flock(int fd, int operation) { (void)fd; (void)operation; return 0; }
int lockf(int fd, int command, long size) { (void)fd; (void)command; (void)size; return 0; }
"""


def _start(root: Path, chat: str, seconds: float, **more: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, str(_HERE / "committing.py"), str(root), chat, str(seconds)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **more},
        cwd=root,
    )


def _acknowledged(output: bytes) -> list[tuple[str, str]]:
    rows = [line.split() for line in output.decode().splitlines(keepends=True) if "\n" in line]
    return [(chat, turn_id) for chat, turn_id in rows]


def test_a_killed_process_loses_no_turn_that_was_kept(tmp_path: Path) -> None:
    dice = random.Random(3)
    log = library(tmp_path).new()
    log.plan(begin(log.id))
    log.add(turn())
    kept: set[str] = set()
    for _ in range(_KILLS):
        process = _start(tmp_path, log.id, 60)
        assert process.stdout is not None
        first = process.stdout.readline()  # it is at work
        time.sleep(dice.random() * 0.05)
        process.kill()
        kept |= {turn_id for _, turn_id in _acknowledged(first + process.stdout.read())}
        process.wait()
        process.stdout.close()
        warnings: list[str] = []
        again = library(tmp_path, warnings=warnings).open(log.id)
        assert kept <= set(again.tree.turns)
        assert warnings == []
    assert len(kept) >= _KILLS


@pytest.mark.parametrize("locks", ["working", "none"])
def test_sixteen_processes_lose_no_turn(tmp_path: Path, locks: str) -> None:
    more = {"LD_PRELOAD": _without_locks(tmp_path)} if locks == "none" else {}
    root = tmp_path / "store"
    root.mkdir()
    log = library(root).new()
    log.plan(begin(log.id))
    log.add(turn())
    processes = [_start(root, log.id, _SECONDS, **more) for _ in range(_PROCESSES)]
    found = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * _PROCESSES
    kept = [turn_id for output in found for _, turn_id in _acknowledged(output)]
    again = library(root).open(log.id)
    assert len(kept) == len(set(kept)) == len(again.tree.turns) - 1
    assert set(kept) <= set(again.tree.turns)
    assert not list(log.folder.glob("*.draft"))


def _without_locks(folder: Path) -> str:
    """Build what makes locks succeed without locking, as on some network file systems."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler to take the locks away with")
    source, built = folder / "nolocks.c", folder / "nolocks.so"
    source.write_text(_NO_LOCKS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True)
    return str(built)
