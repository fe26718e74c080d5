"""llama.cpp's own programs as an engine of the comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Run
from task import HERE, PROMPT, Task, ensure, made, version_of


@dataclass(frozen=True)
class Llama:
    """llama.cpp's own programs."""

    kind: str
    folder: Path | None
    threads: int

    @property
    def name(self) -> str:
        return f"llama.cpp {self.kind}"

    def missing(self) -> str | None:
        if self.folder is None:
            return "--llama-bin DIR names the folder of llama.cpp's programs"
        programs = ("bench", "batched-bench", "completion", "quantize")
        lost = [p for p in programs if not (self.folder / f"llama-{p}").exists()]
        return f"{self.folder} has no llama-{lost[0]}" if lost else None

    def does(self, model: str, task: Task) -> bool:
        if task.what == "greedy":
            return self.kind in ("F16", "BF16") and version_of(model) in ("v6", "v7")
        return version_of(model) in ("v6", "v7")

    def file(self, model: str, folder: Path) -> Path:
        target = folder / f"{model}.{self.kind}.gguf"
        how = ["--type", self.kind, "--llama-bin", str(self.folder)]
        return made(target, [HERE / "gguf_writer.py", ensure(model, folder), target, *how])

    def command(self, file: Path, task: Task) -> list[str]:
        assert self.folder is not None
        program, flags = self._flags(task)
        threads = ["-t", str(self.threads)]
        return [str(self.folder / program), "-m", str(file), *threads, *flags]

    def _flags(self, task: Task) -> tuple[str, list[str]]:
        count = str(task.tokens)
        if task.what == "batch":
            size = str(task.batch)
            context = str(task.batch * (8 + task.tokens))
            flags = ["-npp", "8", "-ntg", count, "-npl", size, "-c", context]
            return "llama-batched-bench", [*flags, "--output-format", "jsonl"]
        if task.what in ("decode", "prefill"):
            prompt, new = ("0", count) if task.what == "decode" else (count, "0")
            return "llama-bench", ["-p", prompt, "-n", new, "-r", "1", "-o", "jsonl"]
        # Without the warm-up and a context of a million tokens it starts several times faster.
        quick = ["--no-warmup", "-c", "512", "-fit", "off", "-no-cnv", "--no-display-prompt"]
        return "llama-completion", [*quick, "--temp", "0", "-n", count, "-p", PROMPT]

    def read(self, run: Run, task: Task) -> Any:
        if task.what == "start":
            return run.first_s
        if task.what == "greedy":
            return run.output.rstrip(b"\n")
        fields = {"batch": "speed_tg", "decode": "avg_ts", "prefill": "avg_ts"}
        rows = [line for line in run.output.splitlines() if line.startswith(b"{")]
        return json.loads(rows[-1])[fields[task.what]]
