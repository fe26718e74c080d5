"""A tiny model, and the command line inside this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli.running import environment
from oracle.weights import Shape, random_model
from safetensors.numpy import save_file

from rwkv_cli.cli.app import run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random RWKV-7 that reads and writes bytes; it babbles, and it is fast."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_file(
        random_model("v7", Shape(layers=1, heads=2, size=16, ffn=32, vocab=256, rank=4)), path
    )
    return path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a data folder of its own."""
    return environment(tmp_path)


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    code: int
    out: bytes
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Cli]:
    """Runs the command line in this process, with stdin from bytes or from nowhere."""
    for name in [n for n in os.environ if n.startswith("RWKV_") and n not in env]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    keep, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)

    def call(*arguments: object, stdin: bytes | None = None) -> Outcome:
        source = nothing
        if stdin is not None:
            source, feed = os.pipe()
            os.write(feed, stdin)  # small: it fits the pipe
            os.close(feed)
        os.dup2(source, 0)
        capfdbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        if source != nothing:
            os.close(source)
        return Outcome(code, out, err.decode())

    yield call
    os.dup2(keep, 0)
    os.close(keep)
    os.close(nothing)


@pytest.fixture
def models(env: dict[str, str], cli: Cli, tiny: Path) -> Path:
    """A models folder with one model, and with things that are none."""
    folder = Path(env["RWKV_DATA_DIR"]) / "models"
    folder.mkdir(parents=True)
    shutil.copy(tiny, folder / "tiny-1.5B.safetensors")
    return folder


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """Another model, elsewhere."""
    path = tmp_path / "far.safetensors"
    shape = Shape(layers=1, heads=2, size=16, ffn=32, vocab=256, rank=4)
    save_file(random_model("v6", shape), path)
    return path


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a file."""

    def write(*rows: object, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def flags(tiny: Path) -> list[object]:
    """How the tests of batches call `generate`."""
    return ["generate", "-m", tiny, "--tokenizer", "bytes", "-q", "-N", 12, "--seed", 3]
