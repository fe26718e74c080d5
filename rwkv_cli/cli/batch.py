"""`rwkv generate -i`: answers to the rows of a file or a stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rwkv_cli.batch.driving import Part, Run, StreamMarks, Target
from rwkv_cli.batch.duplicates import refuse_duplicates
from rwkv_cli.batch.kinds import OPENAI
from rwkv_cli.batch.ordered import Ordered, Unordered
from rwkv_cli.batch.output import Output
from rwkv_cli.batch.reading import RowSource, Survey, open_rows
from rwkv_cli.batch.running import Prefix
from rwkv_cli.batch.writing import line_maker
from rwkv_cli.cli.answering import Answering, answering
from rwkv_cli.cli.batchplan import Plan, Wishes
from rwkv_cli.cli.batchreport import BatchReport
from rwkv_cli.cli.loading import interruptible
from rwkv_cli.errors import PartialError
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, Sink, is_terminal, note, stdout_sink
from rwkv_cli.render.style import dim


def generate_rows(flags: dict[str, Any]) -> None:
    """Answer rows."""
    wishes = Wishes(flags)
    with ExitStack() as stack:
        source = stack.enter_context(open_rows(flags["input"], flags["format"], null=flags["null"]))
        survey = source.survey()
        if source.kind == OPENAI and Path(flags["input"]).is_file():
            refuse_duplicates(Path(flags["input"]))
        _Rows(wishes, source, survey, stack).run()


class _Rows:
    """One run of the command."""

    def __init__(
        self, wishes: Wishes, source: RowSource, survey: Survey | None, stack: ExitStack
    ) -> None:
        self.wishes, self.source, self.survey, self.stack = wishes, source, survey, stack
        self.flags, self.quiet = wishes.flags, wishes.flags["quiet"]
        self.output: Output | None = None
        self.report: BatchReport | None = None

    def run(self) -> None:
        """Ask and keep.

        Raises:
            PartialError: Some rows failed.
        """
        # A closed stdout is found before minutes are spent.
        sink = self._sink()
        by = self.stack.enter_context(answering(self.wishes))
        plan = Plan(self.wishes, by.model, self.source, self.survey)
        if self.flags["dry_run"]:
            from rwkv_cli.cli.batchtrial import try_out

            assert sink
            try_out(plan, by, sink)
            return
        seed = plan.seed()
        prefix = plan.prefix(plan.asking(seed))
        with interruptible(by) as interrupts:
            by.start(plan, prefix)
        interrupts.raise_if_any()
        target: Target
        if sink:
            target = (Unordered if self.flags["unordered"] else Ordered)(self._shown(sink))
        else:
            self.output = target = self._opened(plan, by)
            seed = self.output.manifest.seed or 0
            if self.output.complete and len(self.output.done) >= (plan.rows or math.inf):
                self.output.finish(sort=not self.flags["unordered"])
                self._say(f"{counted(len(self.output.done), 'row')} done before; nothing is left")
                self._fail_if_any(0)
                return
        self._answer(self._prepared(plan, by, seed, target), plan, by, prefix)

    def _sink(self) -> Sink | None:
        """Give where rows go that have no file."""
        if self.flags["output"] and not self.flags["dry_run"]:
            return None
        sink = stdout_sink()
        self.stack.callback(sink.close)
        return sink

    def _shown(self, sink: Sink) -> Callable[[bytes], None]:
        """Give what writes rows: on a terminal, where the bar is not."""
        if not is_terminal(STDOUT):
            return sink.write

        def write(line: bytes) -> None:
            if self.report:
                self.report.bar.finish()
            sink.write(line)

        return write

    def _prepared(self, plan: Plan, by: Answering, seed: int, target: Target) -> Run:
        flags, output = self.flags, self.output
        done = output.done.__contains__ if output else (lambda _: False)
        return Run(
            self.source,
            plan.asking(seed),
            line_maker(plan.layout, by.model.name),
            target,
            Part(flags["skip"] or 0, flags["limit"], done),
            extract=flags["extract"],
            marks=StreamMarks(output) if output and self.survey is None else None,
        )

    def _answer(self, run: Run, plan: Plan, by: Answering, prefix: Prefix) -> None:
        output = self.output
        report = self.report = BatchReport(run, plan.rows, output, quiet=self.quiet)
        try:
            with report.bar.listening(), interruptible(run) as interrupts:
                run.go(by.runner, report.tick)
        finally:
            report.finish()
        if interrupts.count or interrupts.terminated:
            self._say(f"{report.done} done" + ("; the same command goes on" if output else ""))
            interrupts.raise_if_any()
        if output:
            output.finish(sort=not self.flags["unordered"])
        self._tell_shared(prefix, by.from_prefix)
        self._say(report.summary())
        self._fail_if_any(run.failed)

    def _opened(self, plan: Plan, by: Answering) -> Output:
        flags = self.flags
        output = Output(
            Path(flags["output"]),
            plan.manifest(by.numerics),
            errors=Path(flags["errors"]) if flags["errors"] else None,
            restart=flags["restart"],
            retry_errors=flags["retry_errors"],
            note=self._say,
        )
        return self.stack.enter_context(output)

    def _tell_shared(self, prefix: Prefix, times: int) -> None:
        if times > 1:
            tokens = counted(len(prefix.tokens), "token")
            self._say(f"shared prefix: {tokens}, read once instead of {times:,} times")

    def _fail_if_any(self, failed: int) -> None:
        """End with the exit code for rows that failed.

        Raises:
            PartialError: Some did.
        """
        failed = len(self.output.failed) if self.output else failed
        if failed:
            where = self.flags["errors"] or self.flags["output"] or "the output"
            again = "the same command with --retry-errors tries them again"
            raise PartialError(
                f"{counted(failed, 'row')} failed; {where} says why",
                hint=again if self.output else None,
            )

    def _say(self, text: str) -> None:
        if not self.quiet:
            note(dim(safe(text)))
