"""The one place that reads settings: flags > RWKV_* environment > config file >
preset > built-in.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rwkv_cli.engine.strategy import Strategy, choose_strategy
from rwkv_cli.errors import UsageError
from rwkv_cli.places import config_file
from rwkv_cli.sampling import PRESETS, Sampling


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user can set; None means: not set.

    The names are those of the flags, of the keys in the config file, and, in capitals after RWKV_,
    of the environment variables.
    """

    model: str | None = None
    tokenizer: str | None = None
    template: str | None = None
    strategy: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
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

    def placement(self) -> Strategy:
        """Say where the model runs."""
        return choose_strategy(self.strategy, self.device, self.dtype)

    def sampling(self, template: str, base: Sampling | None = None) -> Sampling:
        """Complete the sampling settings.

        Args:
            template: Family of the model, whose preset fills what is not set.
            base: Settings a state was saved with, which come before the preset.
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
        )

    def seed_or_random(self) -> int:
        """Give the seed, drawing one when none is set."""
        return secrets.randbits(32) if self.seed is None else self.seed


_INTEGERS = {"threads", "max_tokens", "seed", "top_k"}
_FLOATS = {"temperature", "top_p", "min_p", "presence", "frequency", "penalty_decay"}
_KEYS = tuple(field.name for field in fields(Settings))


def collect(flags: Mapping[str, Any]) -> Settings:
    """Lay the sources over each other.

    Raises:
        UsageError: A value in the environment or the config file does not fit.
    """
    merged: dict[str, Any] = {**_from_config(config_file()), **_from_environment(os.environ)}
    merged |= {key: flags[key] for key in _KEYS if flags.get(key) is not None}
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
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise UsageError(
            f"{path}: unknown setting {unknown[0]!r}", hint=f"known: {', '.join(_KEYS)}"
        )
    return {key: _convert(key, value, f"{path}: {key}") for key, value in table.items()}


def _convert(key: str, value: object, where: str) -> Any:
    """Give a value its type."""
    kind: Callable[[Any], Any] = int if key in _INTEGERS else float if key in _FLOATS else str
    if kind is str and not isinstance(value, str):
        raise UsageError(f"{where} must be a text, not {value!r}")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where} must be a number, not {value!r}") from error


def _check(settings: Settings) -> None:
    """Refuse numbers that no command can mean."""
    for key, low, high in (
        ("max_tokens", 1, 1 << 40),
        ("threads", 1, 1024),
        ("seed", 0, 2**64 - 1),
    ):
        value = getattr(settings, key)
        if value is not None and not low <= value <= high:
            flag = key.replace("_", "-")
            raise UsageError(f"{flag} is {value}; it must lie between {low} and {high}")
