"""A run is killed at any moment and started again until it ends: the file is that of a run that
nobody disturbed.

BATCH_KILLS=200 pytest -s tests/batch/test_output_kills.py
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from batch.outputs import expected, stream_digest

from rwkv_cli.batch.manifest import load, manifest_path

_HERE = Path(__file__).parent
_KILLS = int(os.environ.get("BATCH_KILLS", "8"))
_ROWS, _PAUSE = 150, 0.0006  # a run of about a tenth of a second
_LIMIT = 60  # seconds for one run


def _start(folder: Path, seed: int, flags: list[str]) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [str(_HERE / "finishing.py"), str(folder / "out.jsonl"), str(_ROWS), str(seed)]
    return subprocess.Popen(
        [sys.executable, *command, str(_PAUSE), *flags],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=folder,
    )


def _flags(kind: str, folder: Path) -> list[str]:
    return {"one": [], "stream": ["--stream"], "apart": ["--errors", str(folder / "bad.jsonl")]}[
        kind
    ]


def _check(kind: str, folder: Path) -> None:
    if kind == "apart":
        assert (folder / "out.jsonl").read_bytes() == expected(_ROWS, failed=False)
        assert (folder / "bad.jsonl").read_bytes() == expected(_ROWS, failed=True)
    else:
        assert (folder / "out.jsonl").read_bytes() == expected(_ROWS)
    manifest = load(manifest_path(folder / "out.jsonl"))
    assert manifest is not None
    assert manifest.complete == _ROWS
    if kind == "stream":
        assert (manifest.input.rows, manifest.input.sha256) == (_ROWS, stream_digest(_ROWS))
    assert len(list(folder.iterdir())) == (3 if kind == "apart" else 2)  # nothing is left behind


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be killed so there")
def test_a_run_that_is_killed_again_and_again_ends_the_same(tmp_path: Path) -> None:
    dice = random.Random(5)
    counts: Counter[str] = Counter()
    kinds = ("one", "stream", "apart")
    number = 0
    while counts["kills"] < _KILLS:
        kind = kinds[number % len(kinds)]
        folder = tmp_path / str(number)
        folder.mkdir()
        number += 1
        while True:
            process = _start(folder, dice.getrandbits(32), _flags(kind, folder))
            assert process.stdout is not None
            begun = process.stdout.readline()  # how many rows are there; it is at work
            counts["went on"] += int(begun) > 0
            time.sleep(dice.random() * 0.2)
            if counts["kills"] >= _KILLS:
                assert process.wait(_LIMIT) == 0
            process.kill()
            process.wait(_LIMIT)
            process.stdout.close()
            counts["kills"] += process.returncode == -9
            if process.returncode != -9:
                assert process.returncode == 0
                break
        _check(kind, folder)
        counts[kind] += 1
    sys.stdout.write(f"{dict(counts)}\n")
