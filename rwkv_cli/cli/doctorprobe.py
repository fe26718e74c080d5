"""One finding of `rwkv doctor`, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rwkv_cli.errors import RwkvError


@dataclass(frozen=True, slots=True)
class Probe:
    """What was looked at, what was found, and what to do about it.

    Attributes:
        result: One line for people.
        step: What to do next; None when there is nothing to do.
        facts: The same for programs.
    """

    result: str
    step: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def asked(probe: Callable[[], Probe]) -> Probe:
    """Run a probe; one that fails, however it does, is a finding as well."""
    try:
        return probe()
    except RwkvError as error:
        return Probe(error.message, error.hint, {"error": error.message})
    except Exception as error:  # the others must be asked all the same
        what = f"this check failed: {type(error).__name__}: {error}"
        return Probe(what, "report it, with rwkv doctor --json", {"error": what})
