"""What the workers of a cluster are told to load."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rwkv_cli.batch.ray_worker import Job
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
    job = ray_job(settings, Path("m.pth"), 8, Prefix([1, 2], "kept"))
    assert job == Job(
        str(tmp_path / "m.pth"),
        dtype="bf16",
        threads=3,
        tokenizer=str(tmp_path / "words.txt"),
        loras=[(str(tmp_path / "a.pth"), 16.0), (str(tmp_path / "b.pth"), None)],
        slots=8,
        prefix=[1, 2],
        prefix_state="kept",
    )
    assert Job(**json.loads(json.dumps(asdict(job)))).prefix == [1, 2]


def test_the_demo_is_each_machine_s_own() -> None:
    job = ray_job(Settings(tokenizer="world"), DEMO, 4, Prefix())
    assert (job.path, job.tokenizer, job.slots) == (None, "world", 4)
