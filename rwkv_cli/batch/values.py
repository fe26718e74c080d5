"""What a row may set, and whether a value can be that; knows no prompts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

from rwkv_cli.batch.jsonline import kind_name, short
from rwkv_cli.batch.row import RowError
from rwkv_cli.sampling import RANGES

MOST_SAMPLES = 1_000  # answers to one prompt
MOST_LOGPROBS = 20  # tokens told with each token
MAX_SEED = (1 << 53) - 1  # the last whole number that every reader of JSON keeps

_TOKEN = re.compile("[0-9]{1,9}")

Check = Callable[[str, Any], Any]


class BadRowError(Exception):
    """A row asks for nothing that can be done.

    Attributes:
        error: Why.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = RowError(code, message)


def bad_value(message: str) -> BadRowError:
    """Make the error of a value that cannot be meant."""
    return BadRowError("bad_value", message)


def a_text(key: str, value: object) -> str:
    """Give a text."""
    if isinstance(value, str):
        return value
    raise bad_value(f"{key} is {kind_name(value)}; it must be a text")


def a_number(key: str, value: object, low: float, high: float) -> float:
    """Give a number within a range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_value(f"{key} is {kind_name(value)}; it must be a number")
    if low <= value <= high:  # NaN, which only a table can hold, is not
        return value
    raise bad_value(f"{key} is {short(value)}; it must lie between {low:,} and {high:,}")


def a_whole_number(key: str, value: object, low: int, high: int) -> int:
    """Give a whole number within a range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_value(f"{key} is {kind_name(value)}; it must be a whole number")
    if isinstance(value, float) and not value.is_integer():
        raise bad_value(f"{key} is {short(value)}; it must be a whole number")
    return int(a_number(key, value, low, high))


def the_stops(key: str, value: object) -> tuple[bytes, ...]:
    """Give one text or a list of them, as bytes."""
    texts = value if isinstance(value, list) else [value]
    stops = tuple(a_text(key, text).encode() for text in texts)
    if b"" in stops:
        raise bad_value(f"{key} holds an empty text: it would stop before the first byte")
    return stops


def the_order(key: str, value: object) -> str:
    """Give the order in which a sampler works."""
    if value in ("rwkv", "openai"):
        return str(value)
    raise bad_value(f"{key} is {short(value)}; it must be rwkv or openai")


def the_logprobs(key: str, value: object) -> int | None:
    """Give how many of the likeliest tokens are told; None for no figures at all."""
    if isinstance(value, bool):
        return 0 if value else None
    return a_whole_number(key, value, 0, MOST_LOGPROBS)


def the_bans(key: str, value: object) -> tuple[int, ...]:
    """Give the tokens that are never drawn: of OpenAI's biases, only that one is known."""
    if not isinstance(value, dict):
        raise bad_value(f"{key} is {kind_name(value)}; it must be an object")
    if any(a_number(key, bias, -100, 100) not in (0, -100) for bias in value.values()):
        raise bad_value(f"{key}: only -100, which bans a token, and 0 are known")
    if wrong := [token for token in value if not _TOKEN.fullmatch(token)]:
        raise bad_value(f"{key}: {short(wrong[0])} is no token id")
    return tuple(int(token) for token, bias in value.items() if bias)


def the_state(key: str, value: object) -> str:
    """Give the name or the path of a saved state."""
    name = a_text(key, value)
    if not name or "\0" in name:
        raise bad_value(f"{key} is {short(name)}, which names no state")
    return name


def overrides(
    fields: Mapping[str, Any], kept: Container[str], *, from_table: bool
) -> dict[str, Any]:
    """Collect what a row sets, checked.

    Args:
        fields: Of the row. Null, and an empty cell of a table, set nothing.
        kept: Names that are fields here and set nothing.
        from_table: Whether all values are texts, which may stand for numbers.

    Raises:
        BadRowError: A value cannot be meant, or two keys contradict each other.
    """
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in KEYS or value is None or key in kept or (from_table and value == ""):
            continue
        name, check, numeric = KEYS[key]
        checked = check(key, _number(value) if from_table and numeric else value)
        if found.setdefault(name, checked) != checked:
            raise bad_value(f"{key} contradicts {name}")
    return found


def _number(text: str) -> Any:
    """Give the number that a cell holds, or its text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _keys() -> dict[str, tuple[str, Check, bool]]:
    """Name what a row may set: what that is called here, its check, whether it is a number."""
    table: dict[str, tuple[str, Check, bool]] = {}
    for name, (low, high) in RANGES.items():
        table[name] = (name, partial(a_number, low=low, high=high), True)
    whole = partial(a_whole_number, low=0, high=int(RANGES["top_k"][1]))
    table["top_k"] = ("top_k", whole, True)
    table["presence_penalty"] = ("presence", *table["presence"][1:])
    table["frequency_penalty"] = ("frequency", *table["frequency"][1:])
    longest = partial(a_whole_number, low=1, high=1 << 40)
    for key in ("max_tokens", "max_completion_tokens"):
        table[key] = ("max_tokens", longest, True)
    table["seed"] = ("seed", partial(a_whole_number, low=0, high=MAX_SEED), True)
    table["n"] = ("samples", partial(a_whole_number, low=1, high=MOST_SAMPLES), True)
    table["logprobs"] = ("logprobs", the_logprobs, True)
    table["sampler_order"] = ("order", the_order, False)
    table["stop"] = ("stops", the_stops, False)
    table["logit_bias"] = ("bans", the_bans, False)
    table["state"] = ("state", the_state, False)
    return table | {key: (key, a_text, False) for key in ("system", "prefill", "think")}


KEYS = _keys()
