"""What a run would read, for people to look at before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rwkv_cli.batch.row import Request, RowError

_SHOWN = 1_000  # characters at each end of a long prompt


def previewed(
    index: int, found: Request | RowError, encode: Callable[[bytes], Sequence[int]]
) -> list[str]:
    """Describe what a row asks: a line about it, then its prompt, line by line.

    Args:
        index: The row.
        found: What it asks, or why it asks nothing.
        encode: Gives the tokens of a text.
    """
    if isinstance(found, RowError):
        return [f"row {index:,}: {found.code}: {found.message}"]
    facts = [_count(len(encode(found.prompt)), "token"), f"at most {found.max_tokens:,} more"]
    if found.samples > 1:
        facts.append(_count(found.samples, "answer"))
    if found.state:
        facts.append(f"after the state {found.state}")
    text = found.prompt.decode("utf-8", "replace")
    if (left := len(text) - 2 * _SHOWN) > 0:
        text = f"{text[:_SHOWN]}\n[{_count(left, 'character')} more]\n{text[-_SHOWN:]}"
    # A line end at the end is told: it is one more line, and empty.
    return [f"row {index:,}: {', '.join(facts)}", *(f"  {line}" for line in text.split("\n"))]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
