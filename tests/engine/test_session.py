"""A conversation can be taken back, resumed and repeated, and never says other than it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from oracle.models import distance
from oracle.scripted import TableTokenizer, scripted, text_of

from rwkv_cli import session
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.generation import Randomness
from rwkv_cli.sampling import Sampling
from rwkv_cli.session import Conversation, Manner, read_transcript
from rwkv_cli.text.templates import load_template

WORLD = load_template("world")
MANNER = Manner(Sampling(1.1, 0.9, presence=0.1), Randomness(3), max_tokens=12)


def _talk(model: Model, *messages: str, system: str = "") -> tuple[Conversation, list[bytes]]:
    """Hold a conversation: it, and the answers as they were shown."""
    conversation = Conversation(model, WORLD, MANNER, system=system)
    return conversation, [b"".join(conversation.ask(message)) for message in messages]


def _ask(conversation: Conversation, message: str) -> bytes:
    return b"".join(conversation.ask(message))


def _content(state: State) -> list[object]:
    arrays = {name: array.tobytes() for name, array in state.arrays.items()}
    logits = None if state.logits is None else state.logits.tobytes()
    return [list(state.tokens), arrays, logits, state.attachments.penalty_counts.tobytes()]


def _resumed(model: Model, conversation: Conversation, path: Path) -> Conversation:
    conversation.snapshot().save(path)
    other = Conversation(model, WORLD, MANNER)
    other.resume(model.load_state(path))
    return other


def test_taking_back_and_asking_again_gives_the_same_answer(each: Model) -> None:
    conversation, answers = _talk(each, "one", "two", "three")
    before = _content(conversation.state)
    taken = conversation.undo(2)
    assert [turn.user for turn in taken] == ["two", "three"]
    assert [_ask(conversation, "two"), _ask(conversation, "three")] == answers[1:]
    assert _content(conversation.state) == before


def test_taken_back_turns_leave_no_trace(model: Model) -> None:
    conversation, _ = _talk(model, "one", "two", "three")
    conversation.undo(2)
    other, _ = _talk(model, "one")
    assert _content(conversation.state) == _content(other.state)
    assert conversation.turns == other.turns
    assert _ask(conversation, "else") == _ask(other, "else")


def test_taking_back_everything_is_the_beginning(model: Model) -> None:
    conversation, answers = _talk(model, "one", "two", system="Be brief.")
    conversation.undo(2)
    assert conversation.state.position == 0
    assert conversation.turns == []
    assert _ask(conversation, "one") == answers[0]


def test_turns_beyond_those_kept_are_read_again(
    each: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_KEPT", 2)
    conversation, _ = _talk(each, "1", "2", "3", "4", "5")
    other, _ = _talk(each, "1", "2")
    read = []
    conversation.undo(3, read.append)
    assert read == [other.state.position]
    assert conversation.state.tokens == other.state.tokens
    assert distance(conversation.state.logits, other.state.logits) < 1e-5
    for name, array in other.state.arrays.items():
        assert distance(conversation.state.arrays[name], array) < 1e-5


def test_states_of_earlier_turns_do_not_pile_up(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_KEPT", 3)
    conversation, _ = _talk(model, "1", "2", "3", "4", "5")
    assert len(conversation._before) == 3
    conversation.undo(2)
    assert all(start < conversation.state.position for start in conversation._before)


def test_varied_answer_differs_and_varies_the_same_way_each_time(model: Model) -> None:
    answers = []
    for _ in range(2):
        conversation, shown = _talk(model, "one")
        for _ in range(3):
            conversation.undo(1)
            conversation.vary()
            shown.append(_ask(conversation, "one"))
        assert len(set(shown)) == 4
        answers.append(shown)
    assert answers[0] == answers[1]


def test_resumed_conversation_equals_uninterrupted(each: Model, tmp_path: Path) -> None:
    whole, answers = _talk(each, "one", "two", "three", system="Be brief.")
    first, _ = _talk(each, "one", "two", system="Be brief.")
    rest = _resumed(each, first, tmp_path / "a.rwkvstate")
    assert _ask(rest, "three") == answers[2]
    assert _content(rest.state) == _content(whole.state)
    assert rest.turns == whole.turns
    assert rest.system == whole.system


def test_turns_from_before_a_resumption_can_be_taken_back(model: Model, tmp_path: Path) -> None:
    first, _ = _talk(model, "one", "two", "three")
    rest = _resumed(model, first, tmp_path / "a.rwkvstate")
    assert [turn.user for turn in rest.undo(2)] == ["two", "three"]
    other, _ = _talk(model, "one")
    assert rest.state.tokens == other.state.tokens
    assert distance(rest.state.logits, other.state.logits) < 1e-5


def test_message_of_any_bytes_survives_a_resumption(model: Model, tmp_path: Path) -> None:
    first, _ = _talk(model, "caf\udce9 \U0001f600")  # a byte that is no UTF-8, as argv gives it
    rest = _resumed(model, first, tmp_path / "a.rwkvstate")
    assert rest.turns[0].user == "caf\udce9 \U0001f600"
    assert bytes(rest.state.tokens).startswith(b"User: caf\xe9 \xf0\x9f\x98\x80\n\nAssistant:")


def test_nothing_changes_when_a_message_cannot_be_read(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    before, turns = _content(conversation.state), list(conversation.turns)

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.ask("two", fail)
    assert (_content(conversation.state), conversation.turns) == (before, turns)


def test_nothing_changes_when_the_answer_is_abandoned(model: Model) -> None:
    conversation, answers = _talk(model, "one")
    before, turns = _content(conversation.state), list(conversation.turns)
    pieces = iter(conversation.ask("two"))
    next(pieces)
    pieces.close()
    assert (_content(conversation.state), conversation.turns) == (before, turns)
    assert conversation.undo(1)[0].answer.strip() == answers[0].decode(errors="replace").strip()


@pytest.mark.parametrize("message", ["", "  ", "\n\n", "\r\n \t"])
def test_empty_message_is_refused(model: Model, message: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        _talk(model, message)


@pytest.mark.parametrize("count", [0, -1, 2])
def test_only_turns_that_were_can_be_taken_back(model: Model, count: int) -> None:
    conversation, _ = _talk(model, "one")
    with pytest.raises(UsageError):
        conversation.undo(count)
    assert len(conversation.turns) == 1


def test_restart_keeps_the_system_text_alone(model: Model) -> None:
    conversation, answers = _talk(model, "one", "two", system="Be brief.")
    conversation.restart()
    assert _ask(conversation, "one") == answers[0]
    conversation.restart("")
    assert bytes(_prompt_of(conversation, "x").tokens) == b"User: x\n\nAssistant:"


def _prompt_of(conversation: Conversation, message: str) -> State:
    """The state at the moment before the answer."""
    return conversation.ask(message).generation.state


def _script(answer: Sequence[int], message: str) -> Conversation:
    """Ask a model that answers with these tokens and ends."""
    prompt = TableTokenizer().encode(f"User: {message}\n\nAssistant:".encode())
    manner = Manner(Sampling(0, presence=0, frequency=0), Randomness(1))
    return Conversation(scripted(answer, prompt), WORLD, manner)


@pytest.mark.parametrize(
    ("answer", "between"),
    [
        ([22], "\n\n"),
        ([22, 7], "\n"),
        ([22, 14], ""),
        ([22, 7, 7], ""),
        ([22, 7, 14], ""),
        ([22, 7, 6], "\n\n"),
        ([], "\n\n"),
        ([22, 7, 17, 2], "\n\n"),  # ends with the stop "\nUser:"
    ],
)
def test_next_turn_follows_after_exactly_one_blank_line(answer: list[int], between: str) -> None:
    conversation = _script(answer, "hi")
    said = b"".join(conversation.ask("hi"))
    text = text_of(answer).partition(b"\nUser:")[0].decode()
    assert conversation.turns[0].answer == text
    assert said == text.lstrip().encode()
    whole = text_of(_prompt_of(conversation, "so").tokens).decode()
    assert whole == f"User: hi\n\nAssistant:{text}{between}User: so\n\nAssistant:"


def test_answer_is_shown_without_its_leading_blanks(model: Model) -> None:
    conversation = _script([6, 7, 6, 2, 6, 3], "hi")
    assert list(conversation.ask("hi")) == [b"a", b" ", b"b"]
    assert conversation.turns[0].answer == " \n a b"


def test_opened_thought_is_part_of_the_answer(model: Model) -> None:
    manner = Manner(MANNER.sampling, MANNER.randomness, max_tokens=5, think="on")
    conversation = Conversation(model, load_template("g1"), manner)
    shown = _ask(conversation, "hi")
    assert shown.startswith(b"<think")
    assert conversation.turns[0].answer.startswith(" <think")
    assert bytes(conversation.state.tokens).startswith(b"User: hi\n\nAssistant: <think")


def test_snapshot_is_a_copy(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    saved = conversation.snapshot()
    before = _content(saved)
    _ask(conversation, "two")
    assert _content(saved) == before
    assert len(read_transcript(saved.attachments.transcript)[1]) == 1
