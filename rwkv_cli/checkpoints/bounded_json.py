"""Parses JSON that someone else wrote; knows what it costs, not what it means."""

from __future__ import annotations

import json
from typing import Any

# Parsed JSON can be twenty times larger than its text, so its values are counted first.
MAX_VALUES = 500_000


class TooManyValuesError(ValueError):
    """There are more values in it than anything that is read here needs."""


class TooDeepError(ValueError):
    """It is nested too deeply."""


def parse(text: bytes | bytearray, **how: Any) -> Any:
    """Parse JSON in UTF-8.

    Args:
        text: The JSON; who calls has made sure that it is not too long.
        how: As `json.loads` takes it.

    Raises:
        ValueError: It is not JSON; as one of the errors above, too much of it.
    """
    if sum(map(text.count, (b"{", b"[", b","))) > MAX_VALUES:
        raise TooManyValuesError(f"more than {MAX_VALUES:,} values")
    try:
        return json.loads(text.decode("utf-8"), **how)
    except RecursionError:
        raise TooDeepError("nested too deeply") from None
