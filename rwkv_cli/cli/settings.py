"""The one place that reads settings: flags > RWKV_* environment > config file >
preset > built-in.
"""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.configfile import config_text, parsed
from rwkv_cli.cli.options import whole_number
from rwkv_cli.engine.strategy import AUTO, Budgets, Strategy, choose_strategy
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.places import config_file
from rwkv_cli.text.templates import load_template

if TYPE_CHECKING:
    from rwkv_cli.engine.lorafile import Lora
    from rwkv_cli.sampling import Sampling


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
        if not self.lora:
            return []
        from rwkv_cli.engine.lorafile import lora_named

        return [lora_named(text) for text in self.lora]

    def sampling(
        self, template: str, base: Sampling | None = None, banned: tuple[int, ...] = ()
    ) -> Sampling:
        """Complete the sampling settings.

        Args:
            template: Family of the model, whose preset fills what is not set.
            base: Settings a state was saved with, which come before the preset.
            banned: Tokens never to use; with none, those of the base stay banned.
        """
        from rwkv_cli.sampling import PRESETS

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
        return int.from_bytes(os.urandom(4), "big") if self.seed is None else self.seed


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
_PLACES = ("device", "dtype")  # short forms of a strategy
# Variables that are no settings: of places, and of the package rwkv, which another program may use.
_OTHERS = {
    "RWKV_DATA_DIR", "RWKV_MODELS_DIR", "RWKV_CACHE_DIR", "RWKV_CONFIG", "RWKV_NATIVE_LIBRARY",
    "RWKV_OFFLINE", "RWKV_JIT_ON", "RWKV_CUDA_ON", "RWKV_V7_ON",
}  # fmt: skip
_KEYS = tuple(field.name for field in fields(Settings))


@dataclass(frozen=True, slots=True)
class Origin:
    """A value that was set.

    Attributes:
        value: It.
        where: The flag, the environment variable or the file that says so.
    """

    value: Any
    where: str


def keys() -> tuple[str, ...]:
    """Name all settings."""
    return _KEYS


def collect(flags: Mapping[str, Any]) -> Settings:
    """Lay the sources over each other.

    Raises:
        UsageError: A value does not fit, wherever it comes from.
    """
    settings = Settings(**{key: origin.value for key, origin in origins(flags).items()})
    _check(settings)
    return settings


def origins(flags: Mapping[str, Any]) -> dict[str, Origin]:
    """Tell what is set, and where; what comes first hides what comes later. A strategy says device
    and precision, so it hides those too.

    Raises:
        UsageError: A value has the wrong type, or a source contradicts itself.
    """
    path = config_file()
    given = {key: flags[key] for key in _KEYS if flags.get(key) not in (None, ())}
    sources = [
        {key: Origin(value, str(path)) for key, value in _from_config(path).items()},
        {k: Origin(v, _variable(k)) for k, v in _from_environment(os.environ).items()},
        {key: Origin(value, f"--{key.replace('_', '-')}") for key, value in given.items()},
    ]
    found: dict[str, Origin] = {}
    for source in sources:
        check_places(source)
        if "strategy" in source:
            found = {key: origin for key, origin in found.items() if key not in _PLACES}
        found |= source
    return found


def check_places(source: Mapping[str, Origin]) -> None:
    """Refuse a source that says twice where a model runs.

    Raises:
        UsageError: It names a strategy, and a device or a precision besides.
    """
    strategy = source.get("strategy")
    twice = next((key for key in _PLACES if key in source), None)
    if strategy and twice and strategy.value.strip() != AUTO:
        what = {"device": "devices", "dtype": "precisions"}[twice]
        raise UsageError(
            f"{_named('strategy', strategy)} says which {what}, so "
            f"{_named(twice, source[twice])} contradicts it",
            hint="leave one of them out",
        )


def _named(key: str, origin: Origin) -> str:
    """Name a setting after who says it: a flag, a variable, or a key of a file."""
    is_key = not origin.where.startswith(("--", "RWKV_"))
    return f"{key} in {origin.where}" if is_key else origin.where


def overruling(key: str) -> Origin | None:
    """Tell what comes before the config file for a setting.

    Raises:
        UsageError: It has the wrong type.
    """
    found = _from_environment(os.environ)
    return Origin(found[key], _variable(key)) if key in found else None


def checked(key: str, text: str) -> Any:
    """Give the value that a text is for a setting.

    Raises:
        UsageError: There is no such setting, or it cannot have that value.
    """
    check_key(key)
    value = _convert(key, text, key)
    _check(Settings(**{key: value}))
    return value


def check_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse a change after which a config file would contradict itself; when it made no sense
    before, that is not the fault of the change.

    Args:
        before: What the file comes to.
        after: What it would come to.

    Raises:
        UsageError: The settings contradict each other.
    """
    where = str(config_file())
    try:
        _check(Settings(**{key: _convert(key, value, key) for key, value in before.items()}))
        check_places({key: Origin(value, where) for key, value in before.items()})
    except (UsageError, NotFoundError, TypeError):  # TypeError: what is no setting
        return
    _check(Settings(**after))
    check_places({key: Origin(value, where) for key, value in after.items()})


def check_key(key: str) -> None:
    """Refuse what is no setting.

    Raises:
        UsageError: It is none.
    """
    if key not in _KEYS:
        raise UsageError(f"unknown setting {key!r}", hint=_known_setting(key))


def _known_setting(key: str) -> str:
    """Say which setting may be meant."""
    close = difflib.get_close_matches(key, _KEYS, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(_KEYS)}"


def _variable(key: str) -> str:
    """Name the environment variable of a setting."""
    return f"RWKV_{key.upper()}"


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for key in _KEYS:
        name = _variable(key)
        if environment.get(name):
            found[key] = _convert(key, environment[name], name)
    return found


def _from_config(path: Path) -> dict[str, Any]:
    """Read the config file; one that is not there, or that may not be looked for, sets nothing."""
    table = parsed(config_text(path), path)
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        what = f"{path}: unknown setting {unknown[0]!r}"
        raise UsageError(what, hint=_known_setting(unknown[0]))
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
        span = f"be at least {low}" if value < low else f"be at most {high}"
        raise UsageError(f"{flag} is {value}; it must {span}")


def variables() -> tuple[list[str], dict[str, str | None]]:
    """Name the variables of ours that are set, and those that look like ours and are none, each
    with what may be meant.
    """
    ours = sorted(name for name in os.environ if name.startswith("RWKV_"))
    known = {*map(_variable, _KEYS), *_OTHERS}
    close = {
        name: difflib.get_close_matches(name, known, n=1) for name in ours if name not in known
    }
    guesses = {name: next(iter(near), None) for name, near in close.items()}
    return [name for name in ours if name in known], guesses
