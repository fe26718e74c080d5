"""What `rwkv generate -i` asks of a model, settled before the first row: from flags and settings to
what rows are asked with, and what an output remembers of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rwkv_cli.batch.asking import Asking, Defaults
from rwkv_cli.batch.kinds import OPENAI
from rwkv_cli.batch.manifest import InputFacts, Manifest
from rwkv_cli.batch.output import SEEDS
from rwkv_cli.batch.reading import RowSource, Survey, open_rows
from rwkv_cli.batch.row import Request, Row, RowError
from rwkv_cli.batch.running import NO_PREFIX, Prefix
from rwkv_cli.batch.shared import common_prefix
from rwkv_cli.batch.template import Template, template_text
from rwkv_cli.cli.batchflags import RAY, check_batch_flags, told_apart
from rwkv_cli.cli.checks import check_counts
from rwkv_cli.cli.loading import checked_bans
from rwkv_cli.cli.settings import collect
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.store.named import find_state
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import saved_sampler

if TYPE_CHECKING:
    from rwkv_cli.arch.spec import Dims
    from rwkv_cli.engine.identity import Identity
    from rwkv_cli.sampling import Sampling
    from rwkv_cli.text.tokenizer import Tokenizer

LOOK = 1000  # rows that are compared to find what all of them share
A_FEW = 3  # rows that people look at
_WORTH = 16  # tokens that it takes to make copying a state worth while
_HEAD = 1 << 16  # bytes of a prompt that are looked at for that
_LAST = 8  # tokens at the end of a state that can hold what stands between two turns


class Wishes:
    """What the user asks for, as far as no model need be known.

    Args:
        flags: Those of `rwkv generate`.

    Attributes:
        flags: The same.
        settings: What they come to.
        template: Makes prompts of fields; None without one.
        on_cluster: Whether a Ray cluster answers.

    Raises:
        UsageError: Flags contradict each other, or make no sense.
        NotFoundError: There is no such state.
    """

    def __init__(self, flags: dict[str, Any]) -> None:
        check_batch_flags(flags)
        check_counts(flags)
        template, form = told_apart(flags["template"])
        self.flags = flags
        self.on_cluster = flags["engine"] == RAY
        if flags["ray_address"] and not self.on_cluster:
            raise UsageError("--ray-address is for a cluster; add --engine ray")
        if flags["state"]:
            flags["state"] = str(find_state(flags["state"]).absolute())
        engine = None if self.on_cluster else flags["engine"]
        self.settings = collect({**flags, "template": form, "engine": engine})
        self.template = Template(template_text(template)) if template is not None else None


class Asked(Protocol):
    """What must be known of a model to ask it something, be it loaded or not."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def dims(self) -> Dims:
        """Its sizes."""

    @property
    def identity(self) -> Identity:
        """What its states are bound to."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Bytes to token ids and back."""

    @property
    def template(self) -> str:
        """Name of its chat format."""

    def load_state(self, path: str | Path) -> State:
        """Read a state file of this model."""


class Plan:
    """What rows are asked with.

    Args:
        wishes: What the user asks for.
        model: Who answers.
        source: The rows.
        survey: What a first pass over them told; None of a stream.

    Attributes:
        layout: How answers are written.
        form: The chat format.
    """

    def __init__(
        self, wishes: Wishes, model: Asked, source: RowSource, survey: Survey | None
    ) -> None:
        self._wishes, self._flags, self._settings = wishes, wishes.flags, wishes.settings
        self._model, self._source, self._survey = model, source, survey
        self.layout = "openai" if source.kind == OPENAI else "jsonl"
        self.form = load_template(self._settings.template or model.template)

    @property
    def rows(self) -> int | None:
        """How many rows are asked for; None where nobody knows."""
        if self._survey is None:
            return None
        rows = max(0, self._survey.rows - (self._flags["skip"] or 0))
        return rows if self._flags["limit"] is None else min(rows, self._flags["limit"])

    def open_state(self, name: str) -> State:
        """Read a saved state by its name or path.

        Raises:
            RwkvError: There is none of this model.
        """
        return self._model.load_state(find_state(name))

    def asking(self, seed: int) -> Asking:
        """Say what rows ask.

        Args:
            seed: What the seeds of rows are made of.

        Raises:
            UsageError: Settings do not fit the rows or the model.
        """
        source, model = self._source, self._model
        return Asking(
            self._defaults(seed), source.kind, ending=self._ending, vocab=model.dims.vocab
        )

    def seed(self) -> int:
        """Give the base seed, drawing one when none is set."""
        return self._settings.seed_or_random() % SEEDS

    def manifest(self, numerics: str) -> Manifest:
        """Write down all that makes a row's text what it is.

        Args:
            numerics: The arithmetic of who answers.
        """
        survey, flags, template = self._survey, self._flags, self._wishes.template
        nothing = hashlib.sha256().hexdigest()
        facts = InputFacts(
            self._source.kind,
            survey.rows if survey else 0,
            survey.digest if survey else nothing,
            stream=survey is None,
            name=flags["input"],
        )
        text = template.text if template else None
        return Manifest(
            self._model.identity.weights,
            numerics,
            facts,
            self._parameters(),
            layout=self.layout,
            template=hashlib.sha256(text.encode()).hexdigest() if text is not None else None,
            seed=None if self._settings.seed is None else self.seed(),
            model_name=self._model.name,
        )

    def prefix(self, asking: Asking) -> Prefix:
        """Find what prompts share: from the first rows of a file, or, of a stream, from what stands
        before the text of any row.
        """
        return self.shared(map(asking, self._first_rows()))

    def shared(self, asked: Iterable[Request | RowError]) -> Prefix:
        """Find what the prompts among some requests share; they are looked at one at a time, since
        a thousand may be large.
        """
        state, encode = self._flags["state"], self._model.tokenizer.encode
        requests = (r for r in asked if isinstance(r, Request) and r.state == state)
        heads = (encode(request.prompt[:_HEAD]) for request in requests)
        two = list(islice(heads, 2))
        tokens = common_prefix(chain(two, heads)) if len(two) > 1 else []
        return Prefix(tokens, state) if len(tokens) >= _WORTH else NO_PREFIX

    def samples(self) -> Iterator[Row]:
        """Give the first of the rows that are asked for, and nothing else after them: of a file
        enough to tell what rows share, of a stream, which may be slow, a few.
        """
        return self._first_of(self._source, A_FEW if self._survey is None else LOOK)

    def _first_of(self, source: RowSource, most: int) -> Iterator[Row]:
        flags = self._flags
        skip, limit = flags["skip"] or 0, flags["limit"]
        wanted = source.rows(lambda index: index >= skip)
        return islice(wanted, most if limit is None else min(most, limit))

    def _first_rows(self) -> Iterator[Row]:
        """Give the first rows of a file once more, or of a stream two that are made up."""
        if self._survey is None or self._flags["input"] == "-":
            template = self._wishes.template
            names: Sequence[str] = sorted(template.names) if template else ["prompt"]
            for text in ("a", "b"):
                yield Row(0, dict.fromkeys(names, text))
            return
        path, null = Path(self._flags["input"]), self._flags["null"]
        with open_rows(path, self._source.kind, null=null) as first:
            yield from self._first_of(first, LOOK)

    def _defaults(self, seed: int) -> Defaults:
        flags, settings = self._flags, self._settings
        return Defaults(
            sampling=self._sampling(),
            seed=seed,
            form=self.form,
            mode=self._mode(),
            system=self._system(),
            think=settings.think,
            max_tokens=settings.max_tokens,
            stops=tuple(text.encode("utf-8", "surrogateescape") for text in flags["stop"]),
            template=self._wishes.template,
            samples=flags["samples"] or 1,
            logprobs=flags["logprobs"],
            state=flags["state"],
            overrides=not flags["no_overrides"],
        )

    def _mode(self) -> str | None:
        system = self._flags["system"]
        return self._flags["mode"] or ("chat" if system is not None else None)

    def _system(self) -> str | None:
        """Give the system text; with a saved state, only a flag means one: that of the settings was
        read.
        """
        return self._flags["system"] if self._flags["state"] else self._settings.system

    def _sampling(self) -> Sampling:
        """Say how tokens are drawn; a saved state brings its own settings, which flags overrule."""
        name, saved = self._flags["state"], None
        if name:
            saved = saved_sampler(self.open_state(name).attachments)
        bans = checked_bans(self._flags["ban"], self._model.dims.vocab)
        return self._settings.sampling(self.form.name, saved[0] if saved else None, bans)

    def _ending(self, name: str) -> bytes | None:
        """Give the last bytes of what a state has read."""
        tokens = self.open_state(name).tokens
        if not len(tokens):
            return None
        return b"".join(map(self._model.tokenizer.token_bytes, tokens[-_LAST:]))

    def _parameters(self) -> dict[str, Any]:
        flags, settings, state = self._flags, self._settings, self._flags["state"]
        return {
            **self._sampling().to_json(),
            "mode": self._mode(),
            "chat format": self.form.name,
            "system": self._system(),
            "think": settings.think,
            "max-tokens": settings.max_tokens,
            "stop": [text.encode("utf-8", "surrogateescape").hex() for text in flags["stop"]],
            "samples": flags["samples"] or 1,
            "logprobs": flags["logprobs"],
            "extract": flags["extract"],
            "null": flags["null"],
            "overrides": not flags["no_overrides"],
            "state": _digest_of(find_state(state)) if state else None,
        }


def _digest_of(path: Path) -> str:
    """Give the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
