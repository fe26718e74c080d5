"""Transcripts in state files: conversations, or a sentence."""

from __future__ import annotations

import json

import pytest

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import Attachments
from rwkv_cli.errors import RefusedError
from rwkv_cli.generation import Randomness
from rwkv_cli.sampling import Sampling
from rwkv_cli.session import Conversation, Manner, Turn, describe_turns, read_transcript
from rwkv_cli.text.templates import load_template

_TURN = {"user": "a", "answer": "b", "start": 0, "finish": "end"}

_GARBAGE = [
    "",
    "x",
    "null",
    "[]",
    "{}",
    "7",
    "[" * 100_000,
    '{"turns": []}',
    '{"turns": 5, "system": ""}',
    '{"turns": [5], "system": ""}',
    '{"turns": [{}], "system": ""}',
    '{"turns": [], "system": 5}',
    '{"turns": [], "system": "\\ud800"}',
]
_WRONG = [
    {"user": 5},
    {"answer": None},
    {"start": "0"},
    {"start": 0.5},
    {"finish": []},
    {"more": 1},
    {"user": "\ud800"},
    {"answer": "\udfff\ud800"},
]


def _transcript(*turns: dict[str, object]) -> str:
    return json.dumps({"system": "", "turns": turns})


def test_saved_turns_are_read() -> None:
    assert read_transcript(_transcript(_TURN)) == ("", [Turn("a", "b", 0, "end")])


@pytest.mark.parametrize("text", _GARBAGE, ids=lambda text: text[:40])
def test_garbage_is_no_conversation(text: str) -> None:
    with pytest.raises(RefusedError, match="no conversation"):
        read_transcript(text)


@pytest.mark.parametrize("change", _WRONG, ids=ascii)
def test_turn_with_wrong_fields_is_no_conversation(change: dict[str, object]) -> None:
    with pytest.raises(RefusedError, match="no conversation"):
        read_transcript(_transcript({**_TURN, **change}))


@pytest.mark.parametrize("starts", [[-1], [0, 10**9], [9, 0]])
def test_conversation_that_contradicts_its_tokens_is_refused(
    model: Model, starts: list[int]
) -> None:
    _, state = model.prefill(list(range(1, 40)))
    turns = [{**_TURN, "start": start} for start in starts]
    state.attachments = Attachments(transcript=_transcript(*turns))
    manner = Manner(Sampling(), Randomness(1))
    conversation = Conversation(model, load_template("world"), manner)
    with pytest.raises(RefusedError, match="contradicts"):
        conversation.resume(state)
    assert conversation.turns == []
    assert conversation.state.position == 0


def test_turns_are_counted_in_words() -> None:
    turn = Turn("a", "b", 0, "end")
    assert [describe_turns([turn] * n) for n in (0, 1, 2)] == ["0 turns", "1 turn", "2 turns"]
