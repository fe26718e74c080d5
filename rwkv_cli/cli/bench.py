"""`rwkv bench`: how fast a model runs here, and what the machine would allow."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.app import Interrupted
from rwkv_cli.cli.benchflags import QUICK, Choices, choices, engines_of
from rwkv_cli.cli.benchreport import plot_lines, terminal_chart, written
from rwkv_cli.cli.loading import choose_model
from rwkv_cli.cli.options import Command, ModelOption, common_options
from rwkv_cli.cli.settings import Origin, Settings, check_places, collect
from rwkv_cli.engine.load import usual_threads
from rwkv_cli.errors import StorageError
from rwkv_cli.render.chart import shows_unicode
from rwkv_cli.render.steps import Steps
from rwkv_cli.render.streams import STDOUT, FileSink, Sink, is_terminal, note, stdout_sink


@click.command(
    cls=Command,
    epilog="Numbers may be lists such as 1,2,4; every combination is measured. A depth is read "
    "once, saved, and restored for each test.",
)
@click.option("-p", "--prefill", metavar="N,...", help="Tokens to read at once (512).")
@click.option("-n", "--decode", metavar="N,...", help="Tokens to generate (128).")
@click.option("-d", "--depth", metavar="N,...", help="Tokens read before (0,4096).")
@click.option("-b", "--batch", metavar="N,...", help="Sequences to generate side by side (1).")
@click.option("-r", "--repeat", metavar="N", help="Times each test is run (5).")
@click.option("--quick", is_flag=True, help=f"The same as {QUICK}.")
@click.option("-f", "--file", metavar="FILE", help="Read this text instead of a built-in one.")
@click.option("--state", metavar="FILE", help="One more depth: that of a saved state.")
@click.option("--format", "form", metavar="FORMAT", help="Table, md, json or csv.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", metavar="FILE", help="Write there instead of stdout.")
@click.option("--compare", metavar="FILE", help="Against an earlier record, made with --json.")
@click.option("--plot", metavar="FILE", help="Draw time against position, as .png or .svg.")
@click.option("-m", "--model", cls=ModelOption, metavar="MODEL", help="File, name or 'demo'.")
@click.option(
    "--tokenizer", cls=ModelOption, metavar="NAME|FILE", help="Instead of the one that belongs."
)
@click.option(
    "--strategy", cls=ModelOption, metavar="TEXT", help="'auto', or devices as in 'cpu bf16'."
)
@click.option("--device", cls=ModelOption, metavar="DEVICE", help="Such as cpu, cuda or mps.")
@click.option("--dtype", cls=ModelOption, metavar="DTYPE,...", help="Precisions of the weights.")
@click.option("--engine", cls=ModelOption, metavar="NAME,...", help="native, torch or both.")
@click.option("--kernels", cls=ModelOption, metavar="NAME", help="On CUDA: auto, torch or cuda.")
@click.option("-t", "--threads", cls=ModelOption, metavar="N,...", help="Threads on a CPU.")
@common_options
def bench(**flags: Any) -> None:
    """Measure how fast a model reads and generates here, and what it needs.

    \b
    rwkv bench
    rwkv bench -m 1.5b -p 512,2k -d 0,16k --dtype bf16,int8 -t 1,2
    rwkv bench -m 1.5b --json -o before.json
    rwkv bench -m 1.5b --compare before.json --plot flat.svg

    Each figure is the median of its repeats; min-max is their spread, p95 is over
    single tokens. The shares are those of the machine's own peak, measured in the
    same run: of its memory's speed when generating, of its arithmetic when reading.
    """
    asked = choices(flags)
    placed = ("strategy", "device", "dtype")
    check_places({key: Origin(flags[key], f"--{key}") for key in placed if flags[key]})
    rest = {key: value for key, value in flags.items() if key not in ("dtype", "engine", "threads")}
    settings = collect(rest)
    engines = engines_of(settings, asked)
    with ExitStack() as stack:
        sink: Sink = FileSink(Path(asked.output)) if asked.output else stdout_sink()
        stack.callback(sink.close)
        path = choose_model(settings, quiet=flags["quiet"])
        usual = usual_threads(path)
        engines = [replace(one, threads=one.threads or usual) for one in engines]
        _Job(path, engines, asked, sink, quiet=flags["quiet"]).run()


class _Job:
    """One run of the command."""

    def __init__(
        self, path: Path, engines: list[Settings], asked: Choices, sink: Sink, *, quiet: bool
    ) -> None:
        self.path, self.engines, self.asked, self.sink = path, engines, asked, sink
        self.quiet = quiet

    def run(self) -> None:
        """Measure, and give out what was measured, all of it or as much as there was time for."""
        from rwkv_cli.bench.machine import Watch
        from rwkv_cli.cli.benchrun import Run

        steps = Steps(enabled=not self.quiet)
        watch, interrupted = Watch(), False
        with tempfile.TemporaryDirectory(prefix="rwkv-bench-") as folder:
            run = Run(self.path, self.asked.plan, Path(folder), steps)
            try:
                for settings in self.engines:
                    run.measure(settings)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                steps.finish()
        record = run.record(self._command(), watch.so_far(), complete=not interrupted)
        if record is not None:
            self._give(self._compared(record))
        if interrupted:
            raise Interrupted

    def _compared(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add what became of an earlier record."""
        from rwkv_cli.bench.compare import compare, differences

        if self.asked.earlier is not None:
            record["comparison"] = compare(self.asked.earlier, record)
            record["warnings"] += differences(self.asked.earlier, record)
        return record

    def _give(self, record: dict[str, Any]) -> None:
        """Write the product to its place, and for a person what they want to see besides."""
        text = written(record, self.asked.form)
        is_shown = self.asked.form == "table" and not self.asked.output and is_terminal(STDOUT)
        if is_shown:
            width = shutil.get_terminal_size().columns
            drawing = terminal_chart(record, width, unicode=shows_unicode())
            text += f"\n{drawing}" if drawing else ""
        self.sink.write(text.encode("utf-8", "replace"))
        if self.asked.output and not self.quiet:
            note(written(record, "table").rstrip("\n"))
        elif self.asked.form in ("json", "csv") and not self.quiet:
            for warning in record["warnings"]:
                note(f"warning: {warning}")
        if self.asked.plot:
            self._plot(record)

    def _plot(self, record: dict[str, Any]) -> None:
        from rwkv_cli.files import write_atomic
        from rwkv_cli.render.plot import plot

        assert self.asked.plot is not None
        lines = plot_lines(record)
        if not lines:
            raise StorageError(f"{self.asked.plot}: nothing was generated that could be drawn")
        title = f"{record['model']['name']} on {record['machine']['cpu']}"
        form = self.asked.plot.suffix[1:].lower()
        write_atomic(self.asked.plot, [plot(lines, title, form)])

    def _command(self) -> str:
        """Write the command line that repeats this, with everything that was chosen."""
        first = self.engines[0]
        words = ["rwkv", "bench", "-m", str(self.path), *self.asked.words()]
        for flag, value in (
            ("--tokenizer", first.tokenizer),
            ("--strategy", first.strategy),
            ("--device", first.device),
            ("--dtype", ",".join(dict.fromkeys(e.dtype for e in self.engines if e.dtype))),
            ("--engine", ",".join(dict.fromkeys(e.engine for e in self.engines if e.engine))),
            ("--kernels", first.kernels),
            ("-t", ",".join(dict.fromkeys(str(e.threads) for e in self.engines))),
        ):
            words += [flag, value] if value else []
        return shlex.join(words)
