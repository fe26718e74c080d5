"""Lines of a batch file for OpenAI's interface, as rows of our own kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwkv_cli.batch.jsonline import kind_name, short
from rwkv_cli.batch.values import (
    KEYS,
    MOST_LOGPROBS,
    BadRowError,
    a_text,
    a_whole_number,
    bad_value,
)

CHAT, COMPLETIONS = "/chat/completions", "/completions"

# What says nothing about the text.
_HARMLESS = {
    "model", "user", "metadata", "store", "service_tier", "safety_identifier", "stream",
    "prompt_cache_key", "prompt_cache_retention", "stream_options", "parallel_tool_calls",
}  # fmt: skip
# What would change the text, but for these values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}


def unwrapped(line: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give what a line asks for as the fields of a row, and whether it is a chat.

    Raises:
        BadRowError: It asks for what is not to be had here.
    """
    a_text("custom_id", line.get("custom_id"))
    body = line.get("body")
    if not isinstance(body, dict):
        raise bad_value(f"body is {kind_name(body)}; it must be an object")
    if line.get("method", "POST") != "POST":
        raise bad_value(f"method is {short(line['method'])}; it must be POST")
    chat = _is_chat(line, body)
    key, other = ("messages", "prompt") if chat else ("prompt", "messages")
    if body.get(key) is None:
        raise BadRowError("missing_field", f"missing field '{key}' in body")
    fields: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in _HARMLESS or value in _NEUTRAL.get(name, ()):
            continue
        if name == other or name not in (*KEYS, key, "top_logprobs"):
            raise BadRowError("unsupported", f"{short(name)} in body is not supported")
        fields[name] = value
    return _with_logprobs(fields), chat


def _is_chat(line: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a line asks for a turn of a chat; some leave out where it is to be sent."""
    url = line.get("url")
    if url is None:
        return "prompt" not in body
    address = a_text("url", url).rstrip("/")
    if address.endswith(CHAT):
        return True
    if address.endswith(COMPLETIONS):
        return False
    raise BadRowError("unsupported", f"url {short(url)} is not supported")


def _with_logprobs(fields: dict[str, Any]) -> dict[str, Any]:
    """Say in one field what a chat says in two."""
    top = fields.pop("top_logprobs", None)
    if top is None:
        return fields
    if fields.get("logprobs") is not True:
        raise bad_value("top_logprobs needs logprobs to be true")
    return {**fields, "logprobs": a_whole_number("top_logprobs", top, 0, MOST_LOGPROBS)}
