"""Conversations as text: for people, for this program, for others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rwkv_cli.engine.identity import Identity
from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.render.progress import counted
from rwkv_cli.store.records import Begin
from rwkv_cli.text.thoughts import answer_of
from rwkv_cli.tree import BEGINNING, EDITED, OPEN, Tree, Turn, new_id

KIND = "rwkv-chat"
VERSION = 1

_WIDTH = 60
_ROLES = {"system", "user", "assistant"}
_ID = re.compile("[0-9a-f]{8}")

# Halves of characters; U+DC80 to U+DCFF stand for bytes that are no UTF-8, and are kept.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def as_markdown(begin: Begin, tree: Tree) -> str:
    """Write what was said on the way to where we are as Markdown."""
    parts = [f"# {tree.name}"] if tree.name else []
    parts += [f"**System**\n\n{begin.system}"] if begin.system else []
    for turn in tree.path():
        if turn.finish == OPEN:
            parts.append(f"**You** attached {turn.user}")
        else:
            parts += [f"**You**\n\n{turn.user}", f"**Model**\n\n{answer_of(turn.answer)}"]
    return "\n\n".join(parts) + "\n"


def messages(begin: Begin, tree: Tree) -> list[dict[str, str]]:
    """Give the same as OpenAI messages; of material there is the name alone."""
    found = [{"role": "system", "content": begin.system}] if begin.system else []
    for turn in tree.path():
        if turn.finish == OPEN:
            found.append({"role": "user", "content": f"[{turn.user}]"})
        else:
            found.append({"role": "user", "content": turn.user})
            found.append({"role": "assistant", "content": answer_of(turn.answer)})
    return found


def as_openai(begin: Begin, tree: Tree) -> str:
    """Write the messages as one JSON object."""
    return json.dumps({"messages": messages(begin, tree)}, ensure_ascii=True, indent=2) + "\n"


def as_jsonl(begin: Begin, tree: Tree) -> str:
    """Write the same on one line."""
    return json.dumps({"messages": messages(begin, tree)}, ensure_ascii=True) + "\n"


def as_json(begin: Begin, tree: Tree) -> str:
    """Write everything: all turns with their tokens and settings, tags and name.

    Raises:
        UsageError: It began from a state, which is no text.
    """
    if begin.based:
        raise UsageError(
            f"the conversation {begin.id} began from a state, which json cannot hold",
            hint="export what was said as md, jsonl or openai",
        )
    content = {
        "kind": KIND,
        "version": VERSION,
        "begin": {**asdict(begin), "turns": []},
        "turns": [
            {**asdict(turn), "prompt": list(turn.prompt), "reply": list(turn.reply)}
            for turn in tree.turns.values()
        ],
        "head": tree.head,
        "tags": tree.tags,
        "name": tree.name,
    }
    return json.dumps(content, ensure_ascii=True) + "\n"


FORMATS: dict[str, Callable[[Begin, Tree], str]] = {
    "md": as_markdown,
    "json": as_json,
    "jsonl": as_jsonl,
    "openai": as_openai,
}


def read_json(content: Any, where: str) -> tuple[Begin, Tree]:
    """Read what `as_json` wrote.

    Raises:
        RefusedError: It is something else.
    """
    try:
        if content["kind"] != KIND or content["version"] != VERSION:
            raise ValueError(content["kind"])
        begin = _begin(content["begin"], where)
        tree = Tree(name=_text(content["name"]))
        for row in content["turns"]:
            tree.add(_turn(row))
        tree.tags = {_text(name): _known(tree, to) for name, to in content["tags"].items()}
        tree.head = _known(tree, content["head"])
        return begin, tree
    except (UsageError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"{where}: is no conversation of this program") from error


def _begin(row: dict[str, Any], where: str) -> Begin:
    fields = {name: value for name, value in row.items() if name not in ("based", "turns")}
    if row["based"]:
        raise RefusedError(
            f"{where}: is a conversation that began from a state, which is not in the file",
            hint="export it from where it was held as openai: what was said can be read again",
        )
    identity = Identity(**_texts(fields.pop("identity")))
    return Begin(identity=identity, based=False, turns=(), **_texts(fields))


def _turn(row: dict[str, Any]) -> Turn:
    fields = dict(row)
    prompt, reply = _ids(fields.pop("prompt")), _ids(fields.pop("reply"))
    turn = Turn(prompt=prompt, reply=reply, **_texts(fields))
    if not _ID.fullmatch(turn.id):
        raise ValueError(turn.id)
    return turn


def _texts(fields: dict[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in fields.items()}


def _text(value: object) -> str:
    """Give a text of others; half a character is no text, and nothing could write it."""
    if not isinstance(value, str):
        raise TypeError
    return _HALVES.sub("\ufffd", value)


def _ids(value: Any) -> tuple[int, ...]:
    ids: tuple[int, ...] = tuple(value)
    if not all(type(token) is int and 0 <= token < 1 << 32 for token in ids):
        raise TypeError
    return ids


def _known(tree: Tree, turn: object) -> str:
    if turn != BEGINNING and turn not in tree.turns:
        raise KeyError(turn)
    return str(turn)


def read_messages(content: Any, where: str) -> tuple[str, list[Turn]]:
    """Read OpenAI messages: the system text, and turns that have no tokens yet.

    Raises:
        RefusedError: They are none, or do not alternate.
    """
    rows: Any = content.get("messages") if isinstance(content, dict) else content
    try:
        said = [(_text(row["role"]), _content(row["content"])) for row in rows]
    except (KeyError, TypeError) as error:
        raise RefusedError(f"{where}: holds no messages with a role and a text") from error
    if not said:
        raise RefusedError(f"{where}: holds no messages")
    if any(role not in _ROLES for role, _ in said):
        raise RefusedError(f"{where}: a role is not one of {', '.join(sorted(_ROLES))}")
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    roles = [role for role, _ in said]
    if roles and roles[-1] == "user":
        raise RefusedError(f"{where}: its last message has no answer")
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        raise RefusedError(f"{where}: user and assistant do not take turns, the user first")
    turns: list[Turn] = []
    for (_, user), (_, answer) in zip(said[::2], said[1::2], strict=True):
        parent = turns[-1].id if turns else BEGINNING
        turns.append(Turn(new_id(), parent, user, f" {answer}", (), (), EDITED))
    return system, turns


def _content(content: object) -> str:
    """Read what a message says: a text, or a list of parts that are texts."""
    if isinstance(content, list):
        return "\n".join(_text(part["text"]) for part in content if part["type"] == "text")
    return _text(content)


def summary(tree: Tree) -> str:
    """Say in a line what a conversation is about."""
    turns = tree.path()
    asked = [turn for turn in turns if turn.finish != OPEN] or turns  # material only by default
    first = " ".join(asked[0].user.split()) if asked else "nothing said yet"
    title = tree.name or (first if len(first) <= _WIDTH else first[: _WIDTH - 1] + "\u2026")
    return f"{title}  ({counted(len(turns), 'turn')}, {counted(tree.position(), 'token')})"
