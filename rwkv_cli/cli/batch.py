"""`rwkv generate -i`: answers to the rows of a file or a stream."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.batch.driving import Part, Run, StreamMarks, Target
from rwkv_cli.batch.duplicates import refuse_duplicates
from rwkv_cli.batch.kinds import OPENAI
from rwkv_cli.batch.ordered import Ordered, Unordered
from rwkv_cli.batch.output import Output
from rwkv_cli.batch.reading import RowSource, Survey, open_rows
from rwkv_cli.batch.running import Prefix, Runner
from rwkv_cli.batch.writing import line_maker
from rwkv_cli.cli.batchplan import Plan, Wishes
from rwkv_cli.cli.loading import choose_model, interruptible, load
from rwkv_cli.engine.slots import slots_for
from rwkv_cli.errors import PartialError
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink
from rwkv_cli.render.style import dim

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model


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

    def run(self) -> None:
        """Ask and keep.

        Raises:
            PartialError: Some rows failed.
        """
        flags, settings = self.flags, self.wishes.settings
        # A closed stdout is found before minutes are spent.
        sink = None if flags["output"] and not flags["dry_run"] else stdout_sink()
        model = load(choose_model(settings, quiet=self.quiet), settings, quiet=self.quiet)
        plan = Plan(self.wishes, model, self.source, self.survey)
        target: Target
        if sink is not None:
            self.stack.callback(sink.close)
            if flags["dry_run"]:
                from rwkv_cli.cli.batchtrial import try_out

                try_out(plan, model, self._slots(model), sink)
                return
            seed, target = plan.seed(), (Unordered if flags["unordered"] else Ordered)(sink.write)
        else:
            self.output = target = self._open(plan)
            seed = self.output.manifest.seed or 0
            if self.output.complete:
                self._say(f"{counted(len(self.output.done), 'row')} done before; nothing is left")
                self._fail_if_any(0)
                return
        run = self._prepared(plan, model, seed, target)
        self._answer(run, model, plan)

    def _prepared(self, plan: Plan, model: Model, seed: int, target: Target) -> Run:
        flags, output = self.flags, self.output
        done = output.done.__contains__ if output else (lambda _: False)
        return Run(
            self.source,
            plan.asking(seed),
            line_maker(plan.layout, model.name),
            target,
            Part(flags["skip"] or 0, flags["limit"], done),
            extract=flags["extract"],
            marks=StreamMarks(output) if output and self.survey is None else None,
        )

    def _answer(self, run: Run, model: Model, plan: Plan) -> None:
        prefix = plan.prefix(run.asking)
        runner = Runner(model, slots=self._slots(model), prefix=prefix, open_state=plan.open_state)
        with interruptible(run) as interrupts:
            run.go(runner, self._tick)
        if interrupts.count or interrupts.terminated:
            self._stopped(run)
            interrupts.raise_if_any()
        if self.output:
            self.output.finish(sort=not self.flags["unordered"])
        self._tell_shared(prefix, runner.from_prefix)
        self._fail_if_any(run.failed)

    def _tick(self, read: int, generated: int) -> None:
        del read, generated

    def _slots(self, model: Model) -> int:
        slots: int = self.flags["jobs"] or slots_for(model)
        return slots

    def _open(self, plan: Plan) -> Output:
        flags = self.flags
        output = Output(
            Path(flags["output"]),
            plan.manifest(),
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

    def _stopped(self, run: Run) -> None:
        """Say what there is, and how to go on."""
        if self.output:
            self._say(f"{counted(len(self.output.done), 'row')} done; the same command goes on")
        else:
            self._say(f"{counted(run.answered, 'row')} done")

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
