"""Records: what happened in a conversation, one small file each, that proves itself whole.

A file is a line of JSON and the SHA-256 of that line in hex. Tokens are base64 of little-endian
uint32. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rwkv_cli.engine.identity import Identity
from rwkv_cli.errors import MismatchError, RefusedError
from rwkv_cli.tree import Turn

FORMAT = 1
LIMIT = 1 << 30  # bytes; a turn of a hundred million tokens comes near it

_TURN_TEXTS = ("id", "parent", "user", "answer", "finish", "sampler", "created")


@dataclass(frozen=True, slots=True)
class Begin:
    """How a conversation began.

    Attributes:
        id: Its name.
        model_name: What people call the model.
        model_path: Its weights file.
        identity: What its states are bound to.
        template: Name of the chat format.
        system: Instruction at the start; empty for none.
        forked: Conversation and turn that it was copied from; empty for none.
        based: Whether it began from a saved state, kept beside it.
        created: When, for people.
        turns: What it was copied with from another conversation, in order.
    """

    id: str
    model_name: str
    model_path: str
    identity: Identity
    template: str
    system: str = ""
    forked: str = ""
    based: bool = False
    created: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Going to a turn."""

    to: str


@dataclass(frozen=True, slots=True)
class Name:
    """What the user calls the conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """What the user calls a turn."""

    tag: str
    to: str


Record = Begin | Turn | Move | Name | Tag

KINDS: dict[type[Any], str] = {Begin: "begin", Turn: "turn", Move: "move", Name: "name", Tag: "tag"}


def to_bytes(record: Record) -> bytes:
    """Write a record."""
    content: dict[str, Any] = {"kind": KINDS[type(record)], "format": FORMAT}
    if isinstance(record, Turn):
        content |= _of_turn(record)
    elif isinstance(record, Begin):
        texts = {field.name: getattr(record, field.name) for field in fields(record)}
        content |= texts | {
            "identity": asdict(record.identity),
            "turns": [_of_turn(turn) for turn in record.turns],
        }
    else:
        content |= asdict(record)
    line = json.dumps(content, ensure_ascii=True, sort_keys=True).encode("ascii")
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def _of_turn(turn: Turn) -> dict[str, str]:
    texts = {name: getattr(turn, name) for name in _TURN_TEXTS}
    return texts | {"prompt": _packed(turn.prompt), "reply": _packed(turn.reply)}


def from_bytes(data: bytes, where: str) -> Record:
    """Read a record.

    Args:
        data: The bytes of its file.
        where: The file, for messages.

    Raises:
        RefusedError: It is damaged, or makes no sense.
        MismatchError: A newer version of this program wrote it.
    """
    line, _, seal = data.partition(b"\n")
    if seal != hashlib.sha256(line).hexdigest().encode() + b"\n":
        raise RefusedError(f"{where}: is not whole: its checksum does not match")
    try:
        content = json.loads(line)
        version, kind = content.pop("format"), content.pop("kind")
        if version > FORMAT:
            raise MismatchError(
                f"{where}: has record format {version}, this program reads up to {FORMAT}",
                hint="upgrade rwkv to read this conversation",
            )
        return _READERS[kind](content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"{where}: is no record of a conversation") from error


def _begin(content: dict[str, Any]) -> Begin:
    identity = Identity(**_texts(content.pop("identity")))
    based = content.pop("based") is True
    turns = tuple(_turn(turn) for turn in content.pop("turns"))
    return Begin(identity=identity, based=based, turns=turns, **_texts(content))


def _turn(content: dict[str, Any]) -> Turn:
    prompt, reply = _unpacked(content.pop("prompt")), _unpacked(content.pop("reply"))
    return Turn(prompt=prompt, reply=reply, **_texts(content))


_READERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "begin": _begin,
    "turn": _turn,
    "move": lambda content: Move(**_texts(content)),
    "name": lambda content: Name(**_texts(content)),
    "tag": lambda content: Tag(**_texts(content)),
}


def _texts(content: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in content.values()):
        raise TypeError
    return content


def _packed(ids: Sequence[int]) -> str:
    numbers = array("I", ids)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _unpacked(text: str) -> tuple[int, ...]:
    numbers = array("I")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(text[:20]) from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def check_identity(begin: Begin, identity: Identity) -> None:
    """Compare a conversation's model with another.

    Raises:
        MismatchError: They have other sizes, weights or tokens.
    """
    ours = begin.identity
    for part in ("arch", "weights", "tokenizer"):
        if getattr(ours, part) != getattr(identity, part):
            merged = " and its --lora" if "+" in begin.model_name else ""
            raise MismatchError(
                f"the conversation {begin.id} was held with another model ({begin.model_name})",
                hint=f"go on with that one{merged}, or read its turns again with this one: "
                f"rwkv chat -r {begin.id} --rebuild",
            )
