"""The same conversation for another model: its turns, written in that model's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rwkv_cli.errors import RefusedError
from rwkv_cli.text.templates import ChatTemplate
from rwkv_cli.text.tokenizer import Tokenizer
from rwkv_cli.tree import OPEN, Turn

_MARK = "\ue000rwkv\ue000"


def retold(
    turns: Sequence[Turn], tokenizer: Tokenizer, template: ChatTemplate, system: str
) -> Iterator[Turn]:
    """Write turns again from their text; their names stay.

    Args:
        turns: From the beginning on.
        tokenizer: The other model's.
        template: The chat format.
        system: Instruction at the start; empty for none.

    Raises:
        RefusedError: There is material among them, of which only the name is known as text.
    """
    before = template.opening() + template.system(system)
    for turn in turns:
        if turn.finish == OPEN:
            raise RefusedError(
                f"the material {turn.user} is only known in the tokens of the old model",
                hint="go on with that model, or attach it again in a new conversation",
            )
        head, tail = template.turn(_MARK).split(_MARK)
        prompt = before + head + template.clean(turn.user) + tail
        yield replace(
            turn,
            prompt=tokenizer.encode(prompt.encode("utf-8", "surrogateescape")),
            reply=tokenizer.encode(turn.answer.encode("utf-8", "surrogateescape")),
        )
        before = missing(template.separator(), turn.answer)


def missing(separator: str, answer: str) -> str:
    """Give what an answer lacks of the separator: it may have ended with a line of its own."""
    for length in range(len(separator), 0, -1):
        if answer.endswith(separator[:length]):
            return separator[length:]
    return separator
