"""The engines that are compared, each in processes of its own, at their best settings."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama import Llama
from processes import Run
from task import PROMPT, RUNNERS, Engine, Task, ensure, figure, made, version_of

from rwkv_cli.engine.modelfile import DEMO


@dataclass(frozen=True)
class Ours:
    """This program."""

    dtype: str
    threads: int

    @property
    def name(self) -> str:
        return f"rwkv-cli {self.dtype}"

    def missing(self) -> str | None:
        return None

    def does(self, model: str, task: Task) -> bool:
        if model == "demo":
            return self.dtype == "fp32" and task.what == "start"
        if task.what in ("greedy", "start") and version_of(model) == "v4":
            return False  # no package brings its vocabulary
        return task.what != "greedy" or self.dtype in ("fp32", "bf16")

    def file(self, model: str, folder: Path) -> Path:
        if model == "demo":
            return DEMO
        source = ensure(model, folder)
        if self.dtype not in ("int8", "int4"):
            return source
        packed = folder / f"{model}.{self.dtype}.safetensors"
        how = ["convert", str(source), "--dtype", self.dtype, "-o", str(packed)]
        return made(packed, ["-m", "rwkv_cli", *how])

    def command(self, file: Path, task: Task) -> list[str]:
        if task.what == "start":
            how = ["-q", "-m", str(file), "-t", str(self.threads), "-N", "1", "--temperature", "0"]
            how += ["--dtype", self.dtype, "--raw"]
            return [sys.executable, "-m", "rwkv_cli", "generate", *how, PROMPT]
        plan = {"model": str(file), "dtype": self.dtype, "threads": self.threads, **vars(task)}
        plan["prompt"] = PROMPT
        return [sys.executable, str(RUNNERS / "ours.py"), json.dumps(plan)]

    def read(self, run: Run, task: Task) -> Any:
        return figure(run, task)


@dataclass(frozen=True)
class Torch:
    """A peer in Python: the package `rwkv`, or transformers."""

    package: str
    dtype: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.package} {self.dtype}"

    def missing(self) -> str | None:
        found = importlib.util.find_spec(self.package)
        return None if found else f"pip install {self.package}"

    def does(self, model: str, task: Task) -> bool:
        version = version_of(model)
        if self.package == "transformers":
            return version == "v4" and task.what in ("decode", "prefill")
        if task.what == "start":
            return version in ("v6", "v7")
        return version != "" and task.what in ("decode", "prefill")

    def file(self, model: str, folder: Path) -> Path:
        source = ensure(model, folder)
        if self.package == "transformers":
            return source
        target = source.with_suffix(".pth")
        return made(target, [RUNNERS / "pth.py", source, target])

    def command(self, file: Path, task: Task) -> list[str]:
        runner = "huggingface.py" if self.package == "transformers" else "package.py"
        tokens = task.tokens if task.what == "prefill" else max(8, task.tokens // 3)
        plan = {
            "model": str(file),
            "dtype": self.dtype,
            "what": task.what,
            "tokens": tokens,
            "prompt": PROMPT,
            "threads": self.threads,
        }
        return [sys.executable, str(RUNNERS / runner), json.dumps(plan)]

    def read(self, run: Run, task: Task) -> Any:
        return figure(run, task)


def all_engines(threads: int, llama_bin: Path | None) -> list[Engine]:
    """List every engine in every precision."""
    llama: list[Engine] = [
        Llama(kind, llama_bin, threads) for kind in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M")
    ]
    package = [Torch("rwkv", dtype, threads) for dtype in ("fp32", "bf16")]
    hugging = [Torch("transformers", dtype, threads) for dtype in ("fp32", "bf16")]
    ours = [Ours(dtype, threads) for dtype in ("fp32", "bf16", "int8", "int4")]
    return [*ours, *llama, *package, *hugging]


def choose(engines: list[Engine], tell: Callable[[str], None]) -> list[Engine]:
    """Leave out the engines that cannot run here, with a line about each."""
    here = []
    for engine in engines:
        why = engine.missing()
        if why:
            tell(f"skipped: {engine.name}: {why}")
        else:
            here.append(engine)
    return here
