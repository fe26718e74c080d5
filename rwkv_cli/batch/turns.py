"""Conversations in a row, from lists of messages to the text of a chat format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rwkv_cli.batch.jsonline import kind_name, short
from rwkv_cli.batch.values import BadRowError, a_text, bad_value
from rwkv_cli.text.templates import ChatTemplate, beginning

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_FOREIGN = ("tool_calls", "function_call", "tool_call_id", "audio")  # what a message may not do


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation up to where an answer is wanted.

    Attributes:
        user: The last message.
        system: What stands before the first; None when nothing is said of it.
        past: The messages before with their answers.
        prefill: How the answer begins.
    """

    user: str
    system: str | None = None
    past: tuple[tuple[str, str], ...] = ()
    prefill: str = ""


def read_messages(value: object) -> Talk:
    """Read a list of messages, as OpenAI's interface has them. Messages of one role in a row are
    one; an answer at the end is to be gone on with.

    Raises:
        BadRowError: It is none, or one that a chat format has no place for.
    """
    if not isinstance(value, list):
        raise bad_value(f"messages is {kind_name(value)}; it must be a list")
    said = list[tuple[str, str]]()
    for number, message in enumerate(value, 1):
        role, text = _message(message, f"message {number}")
        if said and said[-1][0] == role:
            said[-1] = (role, f"{said[-1][1]}\n{text}")
        else:
            said.append((role, text))
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    if any(role == "system" for role, _ in said):
        raise bad_value("messages: a system message stands after others; only the first can")
    if not said:
        raise BadRowError("empty_prompt", "there is no message of the user")
    if said[0][0] != "user":
        raise bad_value("messages: the first one must be the user's")
    prefill = said.pop()[1] if said[-1][0] == "assistant" else ""
    texts = [text for _, text in said]
    past = tuple(zip(texts[0:-1:2], texts[1::2], strict=True))
    return Talk(texts[-1], system, past, prefill)


def chat_text(template: ChatTemplate, talk: Talk, before: bytes | None, think: str | None) -> str:
    """Write a conversation in a chat format, up to where the model goes on. What is said in it is
    cleaned, so that none of it can pass for a turn.

    Args:
        template: The format.
        talk: The conversation.
        before: The last bytes of what the model has read; None when it has read nothing.
        think: Mode of thinking; None is the template's default.

    Raises:
        UsageError: The format has no such mode.
    """
    parts = [beginning(template, before), template.system(talk.system or "")]
    for user, answer in talk.past:
        parts.append(_led(template.turn(user), template.clean(answer)))
        parts.append(template.separator())
    parts.append(_led(template.turn(talk.user, think), template.clean(talk.prefill)))
    return "".join(parts)


def _led(turn: str, answer: str) -> str:
    """Put an answer after its lead-in: a space stands between, unless white space does."""
    return turn + (f" {answer}" if answer and not turn[-1:].isspace() else answer)


def _message(message: Any, name: str) -> tuple[str, str]:
    """Give role and text of a message."""
    if not isinstance(message, dict):
        raise bad_value(f"{name} is {kind_name(message)}; it must be an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_value(f"{name}: role is {short(role)}; it must be one of {', '.join(_ROLES)}")
    foreign = next((key for key in _FOREIGN if message.get(key)), None)
    if foreign:
        raise BadRowError("unsupported", f"{name}: {foreign} is not supported")
    content = message.get("content")
    if isinstance(content, list):
        return _ROLES[role], "".join(_part(part, name) for part in content)
    return _ROLES[role], a_text(f"{name}: content", content)


def _part(part: Any, name: str) -> str:
    """Give the text of a part of a message."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if kind != "text":
        raise BadRowError("unsupported", f"{name}: only parts of type text are supported")
    return a_text(f"{name}: text", part.get("text"))
