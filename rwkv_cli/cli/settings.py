"""The one place that reads settings: flags > RWKV_* environment > config file >
preset > built-in.
"""

from __future__ import annotations

import difflib
import operator
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rwkv_cli.cli.options import whole_number
from rwkv_cli.engine.lorafile import Lora, lora_named
from rwkv_cli.engine.memory import Budgets
from rwkv_cli.engine.strategy import Strategy, choose_strategy
from rwkv_cli.errors import UsageError
from rwkv_cli.files import reason
from rwkv_cli.places import config_file
from rwkv_cli.sampling import PRESETS, Sampling
from rwkv_cli.text.templates import load_template


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user can set; None means: not set.

    The names are those of the flags, of the keys in the config file, and, in capitals after RWKV_,
    of the environment variables.
    """

    model: str | None = None
    lora: tuple[str, ...] | None = None
    tokenizer: str | None = None
    template: str | None = None
    strategy: str | None = None
    device: str | None = None
    dtype: str | None = None
    engine: str | None = None
    threads: int | None = None
    kernels: str | None = None
    vram_budget: int | None = None
    ram_budget: int | None = None
    system: str | None = None
    think: str | None = None
    max_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence: float | None = None
    frequency: float | None = None
    penalty_decay: float | None = None
    sampler_order: str | None = None
    state_room: int | None = None

    def placement(self) -> Strategy:
        """Say where the model runs."""
        chosen = choose_strategy(
            self.strategy, self.device, self.dtype, self.engine, self.threads, self.kernels
        )
        return replace(chosen, budgets=Budgets(self.vram_budget, self.ram_budget))

    def loras(self) -> list[Lora]:
        """Name the files to merge into the model.

        Raises:
            UsageError: One is misspelt.
        """
        return [lora_named(text) for text in self.lora or ()]

    def sampling(
        self, template: str, base: Sampling | None = None, banned: tuple[int, ...] = ()
    ) -> Sampling:
        """Complete the sampling settings.

        Args:
            template: Family of the model, whose preset fills what is not set.
            base: Settings a state was saved with, which come before the preset.
            banned: Tokens never to use; with none, those of the base stay banned.
        """
        return (base or PRESETS[template]).with_changes(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence=self.presence,
            frequency=self.frequency,
            penalty_decay=self.penalty_decay,
            order=self.sampler_order,
            banned=banned or None,
        )

    def seed_or_random(self) -> int:
        """Give the seed, drawing one when none is set."""
        return secrets.randbits(32) if self.seed is None else self.seed


_INTEGERS = {
    "threads", "max_tokens", "seed", "top_k", "state_room", "vram_budget", "ram_budget",
}  # fmt: skip
_FLOATS = {"temperature", "top_p", "min_p", "presence", "frequency", "penalty_decay"}
_RANGES = {
    "max_tokens": (1, 1 << 40),
    "threads": (1, 1024),
    "seed": (0, 2**64 - 1),
    "state_room": (0, 1 << 60),
    "vram_budget": (0, 1 << 60),
    "ram_budget": (0, 1 << 60),
}
_KEYS = tuple(field.name for field in fields(Settings))


def collect(flags: Mapping[str, Any]) -> Settings:
    """Lay the sources over each other.

    Raises:
        UsageError: A value does not fit, wherever it comes from.
    """
    merged: dict[str, Any] = {**_from_config(config_file()), **_from_environment(os.environ)}
    merged |= {key: flags[key] for key in _KEYS if flags.get(key) not in (None, ())}
    settings = Settings(**merged)
    _check(settings)
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for key in _KEYS:
        name = f"RWKV_{key.upper()}"
        if environment.get(name):
            found[key] = _convert(key, environment[name], name)
    return found


def _from_config(path: Path) -> dict[str, Any]:
    """Read the config file; one that is not there, or that may not be looked for, sets nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8") from error
    except OSError as error:
        if not os.access(path.parent, os.X_OK):
            return {}
        raise UsageError(f"{path}: cannot be read: {reason(error)}") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        close = difflib.get_close_matches(unknown[0], _KEYS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(_KEYS)}"
        raise UsageError(f"{path}: unknown setting {unknown[0]!r}", hint=hint)
    return {key: _convert(key, value, f"{path}: {key}") for key, value in table.items()}


def _convert(key: str, value: object, where: str) -> Any:
    """Give a value its type.

    Raises:
        UsageError: It cannot have that type.
    """
    if key == "lora":
        return _texts(value, where)
    if key not in _INTEGERS | _FLOATS:
        if not isinstance(value, str):
            raise UsageError(f"{where} must be a text, not {value!r}")
        return value
    kind = "whole number" if key in _INTEGERS else "number"
    try:
        if isinstance(value, bool):
            raise TypeError
        if key in _FLOATS:
            return float(value)  # type: ignore[arg-type]
        return whole_number(value) if isinstance(value, str) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{where} must be a {kind}, not {value!r}") from error


def _texts(value: object, where: str) -> tuple[str, ...]:
    """Read one text, or a list of them.

    Raises:
        UsageError: It is neither.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{where} must be a text or a list of texts, not {value!r}")
    return tuple(texts)


def _check(settings: Settings) -> None:
    """Refuse what no command can mean, before anything is loaded or read."""
    for key in _RANGES:
        check_range(key, getattr(settings, key))
    settings.sampling("world")
    settings.placement()
    if settings.template is not None:
        load_template(settings.template)


def check_range(key: str, value: int | None) -> None:
    """Check one of the numbers that are no matter of sampling.

    Raises:
        UsageError: It is too small or too large.
    """
    low, high = _RANGES.get(key, (0, 0))
    if key in _RANGES and value is not None and not low <= value <= high:
        flag = key.replace("_", "-")
        raise UsageError(f"{flag} is {value}; it must lie between {low} and {high}")
