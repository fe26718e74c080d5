"""What a short command loads: in a loop over many files, that is most of its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.running import environment

_RUN = """
import gc, json, os, sys
from rwkv_cli.cli.app import run
code = run(sys.argv[1:])
tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
print(json.dumps([code, sorted(sys.modules), dict(os.environ), gc.isenabled(), tasks]))
"""


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[str], dict, bool, int]:
    """What a process looks like that has generated from the demo."""
    home = tmp_path_factory.mktemp("starting")
    line = ["generate", "-q", "-N", "1", "--threads", "1", "-o", str(home / "out"), "Once"]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *line],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=home,
        timeout=60,
        check=True,
    )
    return tuple(json.loads(done.stdout))


def test_generating_loads_nothing_that_only_others_need(looked: tuple) -> None:
    code, modules, *_ = looked
    others = {
        "multiprocessing", "numpy.random", "prompt_toolkit", "rwkv_cli.hub.fetch",
        "rwkv_cli.native.build", "secrets", "sqlite3", "subprocess", "torch", "traceback",
        "truststore", "urllib3",
    }  # fmt: skip
    assert code == 0
    assert sorted(others & set(modules)) == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_is_started_for_products_nobody_wants(looked: tuple) -> None:
    assert looked[4] == 1


def test_how_modules_were_imported_is_not_felt_later(looked: tuple) -> None:
    _, _, variables, collecting, _ = looked
    assert "OPENBLAS_NUM_THREADS" not in variables
    assert collecting
