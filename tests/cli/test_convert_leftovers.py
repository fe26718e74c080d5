"""What a killed conversion leaves goes with a later one, and nothing of anybody else."""

from __future__ import annotations

import os
from pathlib import Path

from cli.conftest import Cli

HEX = "0123456789ab"


def test_old_leftovers_are_swept_and_nothing_else(cli: Cli, models: Path, tmp_path: Path) -> None:
    target = tmp_path / "there" / "model.pth"
    target.parent.mkdir()
    ours = [f".a.pth.1-{HEX}.tmp", f".hf.22-{HEX}.tmp"]
    others = [".mine.tmp", f".hf.22-{HEX}.old", f"a.1-{HEX}.tmp", ".a.pth.1-xyz.tmp"]
    fresh = f".b.pth.1-{HEX}.tmp"
    for name in (*ours, *others, fresh):
        (target.parent / name).mkdir() if "hf" in name else (target.parent / name).touch()
    (target.parent / ours[1] / "part").touch()
    for name in (*ours, *others):
        os.utime(target.parent / name, (0, 0))
    assert cli("convert", models / "tiny-1.5B.safetensors", "-o", target).code == 0
    left = {path.name for path in target.parent.iterdir()}
    assert left == {*others, fresh, target.name}
