"""The same on a cluster of Ray's own, of two machines in one; only where the package is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.batch.running import Runner
from rwkv_cli.batch.wire import packed_answer
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.engine.strategy import Strategy

pytest.importorskip("ray")

from oracle import on_ray

SCRIPT = Path(on_ray.__file__)


def environment(home: Path, mode: str) -> dict[str, str]:
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text("7" * 64)
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return others | {"HOME": str(home), "RAY_AUTH_MODE": mode}


@contextmanager
def cluster(home: Path, mode: str) -> Iterator[str]:
    """The address of a cluster that lasts as long as this."""
    command = [sys.executable, str(SCRIPT), "start"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=environment(home, mode)
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()


def played(home: Path, address: str, *, kills: int, count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), address, str(kills), str(count)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(home, "token"),
        timeout=120,
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with cluster(home, "token") as address:
        yield address


def commanded(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rwkv_cli", "generate", "-m", "demo", *words]
    quiet = {"capture_output": True, "text": True, "cwd": home}
    return subprocess.run(command, env=environment(home, "token"), timeout=120, **quiet)


def test_texts_are_those_of_one_machine_though_a_worker_is_killed(home: Path, address: str) -> None:
    model = load_model(DEMO, Strategy())
    here = Runner(model, slots=4).run(on_ray.requests(60))
    result = played(home, address, kills=1, count=60)
    assert "was lost" in result["said"][0]
    assert sorted(result["answers"]) == sorted(packed_answer(one).decode() for one in here)


def test_a_cluster_goes_on_with_what_one_machine_began(home: Path, address: str) -> None:
    rows = [{"prompt": f"Once upon a time, {n}", "max_tokens": 1 + n} for n in range(20)]
    (home / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    asked = ("-i", "rows.jsonl", "--seed", "5")
    ray = ("--engine", "ray", "--ray-address", address)
    assert commanded(home, *asked, "-o", "here").returncode == 0
    assert commanded(home, *asked, "-o", "both", "--limit", "7").returncode == 0
    done = commanded(home, *asked, "-o", "both", *ray)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("2 workers on the Ray cluster, ")
    for end in ("", ".run.json"):
        assert (home / f"both{end}").read_bytes() == (home / f"here{end}").read_bytes()


def test_a_cluster_of_other_arithmetic_does_not_go_on(home: Path, address: str) -> None:
    (home / "row.txt").write_text("Once\n")
    asked = ("-i", "row.txt", "-o", "other", "-N", "1")
    assert commanded(home, *asked, "--dtype", "fp32").returncode == 0
    done = commanded(home, *asked, "-q", "--engine", "ray", "--ray-address", address)
    assert done.returncode == 4
    assert "and would write other texts\n  say --device and --dtype" in done.stderr


def test_a_cluster_that_asks_nobody_for_a_token_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, "disabled") as address:
        result = played(tmp_path, address, kills=0, count=1)
    assert result["error"] == "UsageError"
    assert "asks nobody for a token" in result["message"]
