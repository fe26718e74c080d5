"""One finding of `rwkv doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
