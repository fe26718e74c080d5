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


def test_texts_are_those_of_one_machine_though_a_worker_is_killed(tmp_path: Path) -> None:
    model = load_model(DEMO, Strategy())
    here = Runner(model, slots=4).run(on_ray.requests(60))
    with cluster(tmp_path, "token") as address:
        result = played(tmp_path, address, kills=1, count=60)
    assert "was lost" in result["said"][0]
    assert sorted(result["answers"]) == sorted(packed_answer(one).decode() for one in here)


def test_a_cluster_that_asks_nobody_for_a_token_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, "disabled") as address:
        result = played(tmp_path, address, kills=0, count=1)
    assert result["error"] == "UsageError"
    assert "asks nobody for a token" in result["message"]
