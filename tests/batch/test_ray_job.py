"""What the workers of a cluster are told to load."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.batch.ray_worker import Job, Worker
from rwkv_cli.batch.running import Prefix
from rwkv_cli.cli.clusters import ray_job
from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.modelfile import DEMO


def test_what_workers_load_is_named_the_same_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").touch()
    settings = Settings(tokenizer="words.txt", lora=("a.pth:16", "b.pth"), dtype="bf16", threads=3)
    job = ray_job(settings, Path("m.pth"), 8, Prefix([1, 2], "kept"), "/s")
    assert job == Job(
        str(tmp_path / "m.pth"),
        dtype="bf16",
        threads=3,
        tokenizer=str(tmp_path / "words.txt"),
        loras=[(str(tmp_path / "a.pth"), 16.0), (str(tmp_path / "b.pth"), None)],
        slots=8,
        state="/s",
        prefix=[1, 2],
        prefix_state="kept",
    )
    assert Job(**json.loads(json.dumps(asdict(job)))).prefix == [1, 2]


def test_the_demo_is_each_machine_s_own() -> None:
    job = ray_job(Settings(tokenizer="world"), DEMO, None, Prefix(), None)
    assert (job.path, job.tokenizer, job.slots) == (None, "world", None)


def loaded(job: Job) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        asyncio.run(Worker().load(json.dumps(asdict(job)).encode(), processors=1))
    )
    return told


@pytest.mark.parametrize(("free", "slots"), [(8 << 30, 144), (0, 1)])
def test_a_worker_takes_as_many_rows_as_its_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, free: int, slots: int
) -> None:
    monkeypatch.setattr("rwkv_cli.engine.room.free_memory", lambda: free)
    assert loaded(Job(None))["slots"] == slots
    assert loaded(Job(None, slots=7))["slots"] == 7


def test_a_machine_without_the_state_that_rows_go_on_from_says_so(tmp_path: Path) -> None:
    told = loaded(Job(None, state=str(tmp_path / "gone.rwkvstate")))
    assert (told["error"], told["exit_code"]) == (f"no such file: {tmp_path}/gone.rwkvstate", 3)
