"""Who answers the rows of `rwkv generate -i`: a model of this process, or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from rwkv_cli.batch.driving import Runner
from rwkv_cli.batch.running import Prefix
from rwkv_cli.batch.running import Runner as LocalRunner
from rwkv_cli.cli.batchplan import Asked, Plan, Wishes
from rwkv_cli.cli.loading import choose_model, load
from rwkv_cli.engine.room import room_for
from rwkv_cli.native.machine import default_threads

if TYPE_CHECKING:
    from rwkv_cli.batch.ray_run import RayRunner
    from rwkv_cli.engine.described import Described

_SLOTS = 64  # rows in flight in an engine of a cluster


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

    @property
    def runner(self) -> RayRunner:
        """Answers requests."""
        assert self._runner
        return self._runner

    def start(self, plan: Plan, prefix: Prefix) -> None:
        """Join the cluster, and have its workers load the model."""
        from rwkv_cli.cli.clusters import ray_runner

        del plan
        flags, known = self._wishes.flags, self.model.identity
        self._runner = ray_runner(
            self._wishes.settings,
            self._path,
            address=flags["ray_address"] or "auto",
            slots=flags["jobs"] or _SLOTS,
            prefix=prefix,
            expected={"arch": known.arch, "weights": known.weights, "tokenizer": known.tokenizer},
        )
        self._runner.start()
        self.numerics = self._runner.identity.get("numerics", "")

    def interrupt(self) -> None:
        """Wait no longer for workers."""
        if self._runner:
            self._runner.interrupt()

    def close(self) -> None:
        """Leave the cluster."""
        if self._runner:
            self._runner.close()
