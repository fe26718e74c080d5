"""From a row to what it asks of a model; knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rwkv_cli.batch.kinds import CSV, OPENAI, TSV
from rwkv_cli.batch.openai import unwrapped
from rwkv_cli.batch.row import Request, Row, RowError
from rwkv_cli.batch.template import Template, missing_field
from rwkv_cli.batch.turns import Talk, chat_text, read_messages
from rwkv_cli.batch.values import BadRowError, a_text, bad_value, overrides
from rwkv_cli.errors import RwkvError, UsageError
from rwkv_cli.sampling import Sampling
from rwkv_cli.text.templates import ChatTemplate

PROMPTS = ("prompt", "messages", "text")  # fields that may hold what a row asks
RAW_LENGTH, CHAT_LENGTH = 512, 4096  # longest answer in tokens, unless it is said otherwise

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence", "frequency", "penalty_decay", "order",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for rows that say nothing else.

    Attributes:
        sampling: How tokens are drawn.
        seed: What the seeds of rows are made of, below 2^64.
        form: The chat format.
        mode: "chat" or "raw"; None makes a chat of rows with messages or a system text.
        system: System text of chats.
        think: Mode of thinking in chats; None is the format's default.
        max_tokens: Longest answer; None is 512, and 4,096 in chats.
        stops: Byte strings that end an answer; a chat format adds its own.
        template: Makes prompts of fields; its names are fields and set nothing.
        samples: Answers to each prompt.
        logprobs: How many of the likeliest tokens are told with each token; None for no figures.
        state: Name or path of a saved state to go on from.
        overrides: Whether fields such as "temperature" set what they name; those of a request to
            OpenAI do so always.
    """

    sampling: Sampling
    seed: int
    form: ChatTemplate
    mode: str | None = None
    system: str | None = None
    think: str | None = None
    max_tokens: int | None = None
    stops: tuple[bytes, ...] = ()
    template: Template | None = None
    samples: int = 1
    logprobs: int | None = None
    state: str | None = None
    overrides: bool = True


class Asking:
    """Makes requests of rows.

    Args:
        defaults: What holds for all.
        kind: Of the rows, as their source tells.
        ending: Gives the last bytes of what a saved state has read, by its name or path, None
            when that is nothing: a chat that goes on from it needs them. It may raise RwkvError.
        vocab: How many tokens the model has; 0 where that is not known.

    Raises:
        UsageError: There is a template where rows hold whole requests, or the chat format has no
            such mode of thinking.
    """

    def __init__(
        self,
        defaults: Defaults,
        kind: str = "jsonl",
        *,
        ending: Callable[[str], bytes | None] = lambda _: b"",
        vocab: int = 0,
    ) -> None:
        self._defaults, self._kind, self._ending, self._vocab = defaults, kind, ending, vocab
        if kind == OPENAI and defaults.template:
            raise UsageError("a template has no place where each row is a request to OpenAI")
        if defaults.mode == "chat":
            defaults.form.turn("", defaults.think)
        self._kept = defaults.template.names if defaults.template else frozenset[str]()

    def __call__(self, row: Row) -> Request | RowError:
        """Make a request of a row, or say why there is none."""
        if row.error:
            return row.error
        try:
            return self._request(row)
        except BadRowError as bad:
            return bad.error

    def _request(self, row: Row) -> Request:
        defaults, fields, chat = self._defaults, row.fields, None
        if self._kind == OPENAI:
            fields, chat = unwrapped(fields)
        wishes: dict[str, Any] = {}
        if defaults.overrides or self._kind == OPENAI:
            wishes = overrides(fields, self._kept, from_table=self._kind in (CSV, TSV))
        asked = self._asked(fields)
        if chat is None:
            wanted = isinstance(asked, Talk) or "system" in wishes
            chat = wanted if defaults.mode is None else defaults.mode == "chat"
        text, begun = (self._chat if chat else self._raw)(asked, wishes)
        stops = wishes.get("stops", defaults.stops)
        length = wishes.get("max_tokens", defaults.max_tokens)
        return Request(
            index=row.index,
            prompt=text.encode("utf-8", "surrogateescape"),
            sampling=self._sampling(wishes),
            seed=wishes["seed"] if "seed" in wishes else row_seed(defaults.seed, row.index),
            max_tokens=length or (CHAT_LENGTH if chat else RAW_LENGTH),
            stops=(*stops, *defaults.form.stops) if chat else stops,
            chat=chat and not begun,  # what goes on from a beginning keeps its white space
            samples=wishes.get("samples", defaults.samples),
            logprobs=wishes.get("logprobs", defaults.logprobs),
            state=wishes.get("state", defaults.state),
        )

    def _asked(self, fields: Mapping[str, Any]) -> str | Talk:
        """Find what a row asks."""
        if self._defaults.template:
            text = self._defaults.template.render(fields)
            if isinstance(text, RowError):
                raise BadRowError(text.code, text.message)
            return text
        found = [key for key in PROMPTS if fields.get(key) is not None]
        if not found:
            missing = missing_field(PROMPTS[0], fields)
            raise BadRowError(missing.code, missing.message)
        if len(found) > 1:
            raise bad_value(f"{found[0]} and {found[1]}: which one is asked? a template says it")
        if found[0] == "messages":
            return read_messages(fields["messages"])
        return a_text(found[0], fields[found[0]])

    def _raw(self, asked: str | Talk, wishes: Mapping[str, Any]) -> tuple[str, bool]:
        """Give the text that is to be continued."""
        if isinstance(asked, Talk):
            raise bad_value("messages are a chat, and raw text is wanted")
        if unfit := next((key for key in ("system", "think") if key in wishes), None):
            raise bad_value(f"{unfit} is for chats, and this row is none")
        text = asked + wishes.get("prefill", "")
        if not text and not wishes.get("state", self._defaults.state):
            raise BadRowError("empty_prompt", "the prompt is empty")
        return text, False

    def _chat(self, asked: str | Talk, wishes: Mapping[str, Any]) -> tuple[str, bool]:
        """Give a conversation, and whether its answer has begun."""
        form, defaults = self._defaults.form, self._defaults
        said = asked if isinstance(asked, Talk) else Talk(asked)
        if not said.user.strip():
            raise BadRowError("empty_prompt", "the prompt is empty")
        state = wishes.get("state")
        system = _one("system", said.system, wishes, None if state else defaults.system)
        prefill = form.clean(_one("prefill", said.prefill or None, wishes, None) or "")
        state, think = state or defaults.state, wishes.get("think", defaults.think)
        try:
            if prefill and form.turn("", think) != form.turn("", "off"):
                raise bad_value("prefill begins the answer, where a thought would stand: think off")
            before = self._ending(state) if state else None
            talk = Talk(said.user, system, said.past, prefill)
            return chat_text(form, talk, before, think), bool(prefill)
        except RwkvError as error:
            raise bad_value(error.message) from error

    def _sampling(self, wishes: Mapping[str, Any]) -> Sampling:
        """Settle how tokens are drawn."""
        base = self._defaults.sampling
        changes = {name: wishes[name] for name in _SAMPLING if name in wishes}
        if bans := wishes.get("bans"):
            if self._vocab and (wrong := [token for token in bans if token >= self._vocab]):
                raise bad_value(f"logit_bias: the model has no token {wrong[0]}")
            changes["banned"] = tuple(sorted({*base.banned, *bans}))
        return base.with_changes(**changes) if changes else base


def row_seed(base: int, index: int) -> int:
    """Give the seed of a row that names none: below 2^53, and told by its place alone.

    Args:
        base: Of the whole run, below 2^64.
        index: Of the row.
    """
    place = base.to_bytes(8, "little") + index.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 11


def _one(key: str, said: str | None, wishes: Mapping[str, Any], default: str | None) -> str | None:
    """Choose between what messages say, what a field says, and the default."""
    if said is not None and key in wishes:
        raise bad_value(f"{key} contradicts messages")
    return wishes.get(key, default) if said is None else said
