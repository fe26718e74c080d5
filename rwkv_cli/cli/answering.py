"""Who answers the rows of `rwkv generate -i`: a model of this process, or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rwkv_cli.batch import manifest
from rwkv_cli.batch.claim import real
from rwkv_cli.batch.driving import Runner
from rwkv_cli.batch.manifest import manifest_path
from rwkv_cli.batch.running import Prefix
from rwkv_cli.batch.running import Runner as LocalRunner
from rwkv_cli.cli.batchplan import Asked, Plan, Wishes
from rwkv_cli.cli.loading import choose_model, load
from rwkv_cli.engine.room import room_for
from rwkv_cli.errors import RwkvError
from rwkv_cli.native.machine import default_threads
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim

if TYPE_CHECKING:
    from rwkv_cli.batch.ray_run import RayRunner
    from rwkv_cli.engine.described import Described


class Answering(Protocol):
    """Who answers."""

    @property
    def model(self) -> Asked:
        """What is known of the model."""

    @property
    def numerics(self) -> str:
        """Its arithmetic; known from `start` on."""

    @property
    def runner(self) -> Runner:
        """Answers requests; there from `start` on."""

    @property
    def from_prefix(self) -> int:
        """Rows that were spared reading what prompts share."""

    def start(self, plan: Plan, prefix: Prefix) -> None:
        """Make ready for requests that have a prefix in common."""

    def interrupt(self) -> None:
        """End `start` soon; safe to call from a signal handler."""


@contextmanager
def answering(wishes: Wishes) -> Iterator[Answering]:
    """Give who answers, for as long as this lasts."""
    if not wishes.on_cluster:
        yield Here(wishes)
        return
    cluster = _There(wishes)
    try:
        yield cluster
    finally:
        cluster.close()


class Here:
    """A model of this process, which gets all processors: the rows of a batch are work enough for
    them, where a token of a small model is not.

    Args:
        wishes: What the user asks for.
    """

    def __init__(self, wishes: Wishes) -> None:
        settings, self._jobs = wishes.settings, wishes.flags["jobs"]
        if settings.threads is None:
            settings = replace(settings, threads=default_threads())
        quiet = wishes.flags["quiet"]
        self.model = load(choose_model(settings, quiet=quiet), settings, quiet=quiet)
        self.numerics = self.model.identity.numerics
        self.runner: LocalRunner

    @property
    def from_prefix(self) -> int:
        """Rows that were spared reading what prompts share."""
        return self.runner.from_prefix

    def start(self, plan: Plan, prefix: Prefix) -> None:
        """Make ready for requests that have a prefix in common."""
        slots = self._jobs or room_for(self.model.engine, self.model.dims.vocab)
        open_state = plan.open_state
        self.runner = LocalRunner(self.model, slots=slots, prefix=prefix, open_state=open_state)

    def interrupt(self) -> None:
        """Nothing takes long here."""


class _There:
    """A Ray cluster."""

    def __init__(self, wishes: Wishes) -> None:
        from rwkv_cli.engine.described import describe_model

        settings = wishes.settings
        self._wishes = wishes
        self._path = choose_model(settings, quiet=wishes.flags["quiet"])
        self.model: Described = describe_model(
            self._path, tokenizer=settings.tokenizer, loras=settings.loras()
        )
        self.numerics, self.from_prefix = "", 0
        self._runner: RayRunner | None = None
        self._stopped = False

    @property
    def runner(self) -> RayRunner:
        """Answers requests."""
        assert self._runner
        return self._runner

    def start(self, plan: Plan, prefix: Prefix) -> None:
        """Join the cluster, and have its workers load the model."""
        from rwkv_cli.cli.clusters import ray_runner

        del plan
        flags = self._wishes.flags
        self._runner = ray_runner(
            self._wishes.settings,
            self._path,
            address=flags["ray_address"] or "auto",
            slots=flags["jobs"],
            prefix=prefix,
            state=flags["state"],
            expected=self._expected(),
            quiet=flags["quiet"],
        )
        try:
            self._runner.start()
        except RwkvError:
            if not self._stopped:  # for else what was begun fails because it was broken off
                raise
        else:
            self.numerics = self._runner.identity.get("numerics", "")
            self._tell(self._runner)

    def _expected(self) -> dict[str, str]:
        """Say what workers must have: this model, and the arithmetic of a run that goes on."""
        known, flags = self.model.identity, self._wishes.flags
        expected = {"arch": known.arch, "weights": known.weights, "tokenizer": known.tokenizer}
        if flags["output"] and not flags["restart"]:
            before = manifest.load(manifest_path(real(Path(flags["output"]))))
            if before:
                expected["numerics"] = before.numerics
        return expected

    def _tell(self, runner: RayRunner) -> None:
        """Say what a user should know of the workers."""
        if self._wishes.flags["quiet"] or self._stopped:
            return
        workers, rows = counted(runner.workers, "worker"), counted(runner.slots, "row")
        for text in [f"{workers} on the Ray cluster, {rows} at once", runner.notice]:
            if text:
                note(dim(safe(text)))

    def interrupt(self) -> None:
        """Wait no longer for workers."""
        self._stopped = True
        if self._runner:
            self._runner.interrupt()

    def close(self) -> None:
        """Leave the cluster."""
        if self._runner:
            self._runner.close()
