"""The record of a comparison: tables in Markdown, everything in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from processes import Run
from shapes import MODELS
from targets import Reached, memory, ratios, share, shares

import rwkv_cli
from rwkv_cli.bench.machine import describe_machine
from rwkv_cli.engine.modelfile import open_model

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rwkv", "torch", "transformers", "numpy")

Key = tuple[str, str, str]


@dataclass
class Report:
    """What a run measured, and on what.

    Attributes:
        values: (model, engine, measure) to tokens a second, or seconds for a start, one a round.
        memory: The same to the most bytes of memory a process held.
        sizes: (model, engine) to the bytes of its weights.
        dense: (model, engine) to the bytes of all weights that one token needs.
        peaks: What the machine gave at best, one a round.
        reads: (model, engine, measure) to the bytes a second that memory gave just before.
        texts: Model to engine to the bytes of its greedy text, in hex.
        numerics: Engine and precision that this program really ran with.
        failed: What could not be measured, and why.
    """

    threads: int
    rounds: int
    values: dict[Key, list[float]] = field(default_factory=dict)
    memory: dict[Key, list[float]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    dense: dict[tuple[str, str], int] = field(default_factory=dict)
    peaks: list[dict[str, float | None]] = field(default_factory=list)
    reads: dict[Key, list[float]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    numerics: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    busy: dict[str, Any] = field(default_factory=dict)

    def add_file(self, model: str, engine: str, file: Path) -> None:
        """Note how large an engine's weights are, and how much of them a token needs."""
        if (model, engine) in self.sizes:
            return
        widened = 2 if engine == "rwkv-cli fp32" and model in MODELS else 1  # files have 16 bits
        self.sizes[model, engine] = widened * file.stat().st_size
        if engine.startswith("rwkv-cli"):
            tensors = open_model(file).checkpoint.tensors
            dense = sum(t.nbytes for name, t in tensors.items() if not name.startswith("emb."))
            self.dense[model, engine] = widened * dense

    def saw(self, key: Key, run: Run) -> None:
        """Keep what a process shows beside its value."""
        self.memory.setdefault(key, []).append(float(run.peak))
        with suppress(ValueError, KeyError, TypeError):
            self.numerics[key[1]] = json.loads(run.output)["numerics"]

    def reached(self) -> list[Reached]:
        """Compare with the targets."""
        return [
            *ratios(self.values),
            *shares(self.values, self.dense, self.reads),
            *memory(self.memory, self.sizes),
        ]

    def markdown(self) -> str:
        """Write everything for people."""
        parts = ["\n".join(self._about()), _table(*self._targets())]
        for model in dict.fromkeys(key[0] for key in self.values):
            parts += [f"## {model}", _table(*self._measured(model))]
        if self.texts:
            parts += ["## Greedy texts", "\n".join(self._agreement())]
        if self.failed:
            parts += ["## Failed", "\n".join(f"- {k}: {why}" for k, why in self.failed.items())]
        return "\n\n".join(parts) + "\n"

    def write(self, name: str) -> None:
        """Write the record's two files."""
        folder = ROOT / "benchmarks" / "records"
        folder.mkdir(exist_ok=True)
        text = f"# {name}\n\n`{_command()}`\n\n{self.markdown()}"
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        body = json.dumps(self.to_json(), indent=1) + "\n"
        (folder / f"{name}.json").write_text(body, encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Write everything for programs."""
        return {
            "command": _command(),
            **_where(),
            "threads": self.threads,
            "rounds": self.rounds,
            "peaks": self.peaks,
            "busy": self.busy,
            "numerics": self.numerics,
            "results": [
                {
                    "model": key[0],
                    "engine": key[1],
                    "measure": key[2],
                    "values": values,
                    "read_bytes_per_second": self.reads.get(key),
                    "median": median(values),
                    "peak_memory_bytes": max(self.memory[key]),
                    "weights_bytes": self.sizes[key[:2]],
                }
                for key, values in self.values.items()
            ],
            "targets": [{**asdict(r), "met": r.met} for r in self.reached()],
            "greedy_texts": self.texts,
            "failed": self.failed,
        }

    def _about(self) -> Iterator[str]:
        where = _where()
        machine = where["machine"]
        yield (
            f"{where['date']}, commit {where['commit']}; "
            f"{machine['cpu']}, {machine['cores']} cores, "
            f"{self.threads} threads, {self.rounds} rounds; "
            + ", ".join(f"{name} {v}" for name, v in where["packages"].items())
        )
        if self.peaks:
            yield f"\nThe machine at best: {_peaks(self.peaks)}."
        if self.busy.get("warning"):
            yield f"\nNot quiet: {self.busy['warning']}."
        if self.numerics:
            ran = ", ".join(f"{engine} as {how}" for engine, how in self.numerics.items())
            yield f"\nThis program ran {ran}."

    def _targets(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for r in self.reached():
            wanted = f"{'≤' if r.at_most else '≥'} {r.bound:g}"
            rows.append([r.what, f"{r.value:.2f}", wanted, "yes" if r.met else "**no**"])
        return ["target", "reached", "wanted", "met"], rows

    def _measured(self, model: str) -> tuple[list[str], list[list[str]]]:
        rows = []
        for key, values in self.values.items():
            if key[0] != model:
                continue
            middle = median(values)
            unit, digits = ("s", 3) if key[2] == "start" else ("tok/s", 1)
            floor = ""
            if key in self.reads and key[:2] in self.dense:
                floor = f"{100 * share(values, self.dense[key[:2]], self.reads[key]):.0f} %"
            spread = f"{min(values):.{digits}f}–{max(values):.{digits}f}"
            memory_mb = f"{max(self.memory[key]) / 1e6:.0f}"
            rows.append([key[2], key[1], f"{middle:.{digits}f} {unit}", spread, floor, memory_mb])
        rows.sort(key=lambda row: row[0])
        return ["what", "engine", "median", "spread", "of the floor", "peak MB"], rows

    def _agreement(self) -> Iterator[str]:
        for model, texts in self.texts.items():
            groups: dict[str, list[str]] = {}
            for engine, text in texts.items():
                groups.setdefault(text, []).append(engine)
            word = "all say the same" if len(groups) == 1 else "differ"
            yield f"- {model}: {word}: " + "; ".join(", ".join(g) for g in groups.values())


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _peaks(peaks: list[dict[str, float | None]]) -> str:
    def span(name: str) -> str:
        found = [float(p[name] or 0) / 1e9 for p in peaks]
        return f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f})"

    kinds = [k for k in ("fp32", "bf16", "int8") if all(p.get(k) for p in peaks)]
    arithmetic = "; ".join(f"{span(k)} G operations/s in {k}" for k in kinds)
    return f"reads {span('read')} GB/s; {arithmetic}"


def _command() -> str:
    return " ".join(["python", "benchmarks/peers.py", *_without_folders(sys.argv[1:])])


def _without_folders(args: list[str]) -> list[str]:
    """Leave this machine's folders out of a command."""
    return ["DIR" if Path(arg).is_absolute() else arg for arg in args]


def _where() -> dict[str, Any]:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    packages = {"rwkv-cli": rwkv_cli.__version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or "unknown",
        "machine": describe_machine(),
        "packages": packages,
    }
