"""A conversation can be taken back, resumed and repeated, and never says other than it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from oracle.models import distance
from oracle.scripted import TableTokenizer, scripted, text_of

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.sampling import Sampling
from rwkv_cli.session import Conversation, Manner, MemoryLog, again
from rwkv_cli.session import states as session_states
from rwkv_cli.session.log import ASK, END, Load
from rwkv_cli.session.transcript import with_transcript
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness
from rwkv_cli.tree import OPEN, Tree

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


class FileLog(MemoryLog):
    """Keeps states as files, as a store does."""

    def __init__(self, folder: Path, points: tuple[str, ...] = (ASK, END)) -> None:
        super().__init__()
        self._folder, self._points = folder, points

    def save_state(self, turn_id: str, point: str, state: State) -> bool:
        state.save(self._folder / f"{turn_id}.{point}")
        return True

    def load_state(self, turn_id: str, point: str, load: Load) -> State | None:
        return load(self._folder / f"{turn_id}.{point}")

    def held(self) -> dict[tuple[str, str], int]:
        files = [path for path in self._folder.iterdir() if path.suffix[1:] in self._points]
        return {(path.stem, path.suffix[1:]): path.stat().st_size for path in files}


def _resumed(
    model: Model, conversation: Conversation, folder: Path, points: tuple[str, ...] = (ASK, END)
) -> Conversation:
    """Go on with a conversation as another process would: from its turns and the states on disk."""
    log = FileLog(folder, points)
    log.tree = conversation.tree
    for turn in conversation.turns:
        log.save_state(turn.id, END, conversation.states.make(turn.id))
    return Conversation(model, WORLD, MANNER, log, system=conversation.system)


def test_taking_back_and_asking_again_gives_the_same_answer(each: Model) -> None:
    conversation, answers = _talk(each, "one", "two", "three")
    before = _content(conversation.prepare())
    taken = conversation.undo(2)
    assert [turn.user for turn in taken] == ["two", "three"]
    assert [_ask(conversation, "two"), _ask(conversation, "three")] == answers[1:]
    assert _content(conversation.prepare()) == before


def test_taken_back_turns_leave_no_trace(model: Model) -> None:
    conversation, _ = _talk(model, "one", "two", "three")
    conversation.undo(2)
    other, _ = _talk(model, "one")
    assert _content(conversation.prepare()) == _content(other.prepare())
    assert _said(conversation) == _said(other)
    assert _ask(conversation, "else") == _ask(other, "else")


def _said(conversation: Conversation) -> list[tuple[object, ...]]:
    """All of the turns but their names."""
    return [
        (t.user, t.answer, list(t.prompt), list(t.reply), t.finish, t.sampler)
        for t in conversation.turns
    ]


def test_taking_back_everything_is_the_beginning(model: Model) -> None:
    conversation, answers = _talk(model, "one", "two", system="Be brief.")
    conversation.undo(2)
    assert conversation.position == conversation.prepare().position == 0
    assert conversation.turns == []
    assert _ask(conversation, "one") == answers[0]


def test_states_that_are_not_held_are_made_again(
    each: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_states, "_ROOM", 1)
    conversation, _ = _talk(each, "1", "2", "3", "4", "5")
    other, _ = _talk(each, "1", "2")
    conversation.undo(3)
    wanted = other.prepare()
    assert conversation.costs()[conversation.tree.head] == wanted.position
    read: list[int] = []
    made = conversation.prepare(read.append)
    assert read[-1] == wanted.position
    assert made.tokens == wanted.tokens
    assert distance(made.logits, wanted.logits) < 1e-5
    for name, array in wanted.arrays.items():
        assert distance(made.arrays[name], array) < 1e-5
    for field in ("penalty_ids", "penalty_counts"):
        mine, theirs = (getattr(s.attachments, field).tolist() for s in (made, wanted))
        assert mine == theirs
    assert made.attachments.tail == wanted.attachments.tail


def test_states_in_memory_do_not_pile_up(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation, _ = _talk(model, "1")
    monkeypatch.setattr(session_states, "_ROOM", 3 * conversation.prepare().nbytes)
    for message in "2345":
        _ask(conversation, message)
    assert len(conversation.states._held) == 3
    assert conversation.costs()[conversation.tree.head] == 0


def test_another_answer_differs_and_is_the_same_each_time(model: Model) -> None:
    answers = []
    for _ in range(2):
        conversation, shown = _talk(model, "one")
        for _ in range(3):
            shown.append(b"".join(again.retry(conversation)))
        assert len(set(shown)) == 4
        assert [conversation.tree.label(t) for t in conversation.tree.turns] == [
            "1a", "1b", "1c", "1d",
        ]  # fmt: skip
        answers.append(shown)
    assert answers[0] == answers[1]


def test_another_answer_is_the_same_after_a_resumption(model: Model, tmp_path: Path) -> None:
    first, _ = _talk(model, "zero", "one")
    rest = _resumed(model, first, tmp_path)
    turns = dict(first.tree.turns)
    shown = b"".join(again.retry(first))
    rest.log.tree = Tree(turns, list(turns)[-1])
    assert b"".join(again.retry(rest)) == shown


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_continued_answer_equals_uninterrupted(each: Model, cut: int) -> None:
    whole, _ = _talk(each, "zero", "one")
    conversation, _ = _talk(each, "zero")
    conversation.manner = Manner(MANNER.sampling, MANNER.randomness, max_tokens=cut)
    _ask(conversation, "one")
    if conversation.turns[-1].finish != "length":
        pytest.skip("the answer is shorter")
    conversation.manner = Manner(MANNER.sampling, MANNER.randomness, max_tokens=12 - cut)
    b"".join(again.proceed(conversation))
    assert _said(conversation) == _said(whole)
    assert _content(conversation.prepare()) == _content(whole.prepare())


def test_complete_answer_is_not_continued() -> None:
    conversation = _script([22, 7], "hi")
    _ask(conversation, "hi")
    with pytest.raises(UsageError, match="complete"):
        again.proceed(conversation)
    assert len(conversation.tree.turns) == 1


def test_peek_leaves_no_trace(model: Model) -> None:
    conversation, answers = _talk(model, "one", "two")
    before, turns = _content(conversation.prepare()), dict(conversation.tree.turns)
    assert b"".join(conversation.peek("what?"))
    assert (_content(conversation.prepare()), conversation.tree.turns) == (before, turns)
    other, more = _talk(model, "one", "two", "three")
    assert _ask(conversation, "three") == more[2]
    assert _content(conversation.prepare()) == _content(other.prepare())


def test_best_of_several_equals_retried_one_by_one(each: Model) -> None:
    conversation, _ = _talk(each, "zero", "one")
    found = again.candidates(conversation, 3)
    for _ in found:
        pass
    other, _ = _talk(each, "zero", "one")
    shown = [b"".join(again.retry(other)) for _ in range(3)]
    assert [bytes(text).lstrip() for text in found.texts] == shown
    chosen = again.choose(conversation, found, 2)
    assert chosen.id == conversation.tree.head
    assert len(conversation.tree.siblings(chosen.id)) == 4
    assert distance(conversation.prepare().logits, other.prepare().logits) < 1e-5


def test_rewound_answer_keeps_its_beginning_and_goes_on_otherwise() -> None:
    conversation = _script([22, 6, 2, 6, 3, 6, 4], "hi")
    assert _ask(conversation, "hi") == b"hello a b c"
    b"".join(again.rewind(conversation, "2w"))
    turn = conversation.turns[-1]
    assert turn.answer.startswith(" hello a")
    assert bytes(text_of(turn.reply)).decode() == turn.answer
    assert len(conversation.tree.turns) == 2
    with pytest.raises(UsageError, match="does not say"):
        again.rewind(conversation, '"nothing of that"')
    with pytest.raises(UsageError, match="words"):
        again.rewind(conversation, "99w")


def test_rewound_to_the_beginning_is_another_answer(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    count = len(conversation.turns[0].reply)
    other, _ = _talk(model, "one")
    assert b"".join(again.rewind(conversation, f"{count}t")) == b"".join(again.retry(other))


def test_edited_answer_is_what_the_model_reads() -> None:
    conversation = _script([22], "hi")
    _ask(conversation, "hi")
    turn = again.rewrite(conversation, conversation.tree.head, "abc d")
    assert (turn.answer, conversation.tree.head) == (" abc d", turn.id)
    whole = text_of(_prompt_of(conversation, "so").tokens).decode()
    assert whole == "User: hi\n\nAssistant: abc d\n\nUser: so\n\nAssistant:"


def test_material_is_read_once_and_asked_about_many_times(model: Model) -> None:
    conversation, _ = _talk(model)
    conversation.attach("a.txt", [b"one\n\n\ntwo", b" three\n\n"])
    place = conversation.tree.head
    assert conversation.tree.turns[place].finish == OPEN
    first = _prompt_of(conversation, "why?")
    text = bytes(first.tokens).decode()
    assert text == "User: one\ntwo three\nwhy?\n\nAssistant:"
    answer = _ask(conversation, "why?")
    conversation.goto(place)
    assert conversation.costs()[place] == 0
    assert _ask(conversation, "why?") == answer
    with pytest.raises(UsageError, match="empty"):
        conversation.attach("b.txt", [b" \n"])


def test_what_was_taken_back_can_be_gone_forth_to(model: Model) -> None:
    conversation, _ = _talk(model, "one", "two", "three")
    head, before = conversation.tree.head, _content(conversation.prepare())
    conversation.undo(2)
    assert [turn.user for turn in conversation.redo(5)] == ["two", "three"]
    assert (conversation.tree.head, _content(conversation.prepare())) == (head, before)
    with pytest.raises(UsageError):
        conversation.redo()


def test_resumed_conversation_equals_uninterrupted(each: Model, tmp_path: Path) -> None:
    whole, answers = _talk(each, "one", "two", "three", system="Be brief.")
    first, _ = _talk(each, "one", "two", system="Be brief.")
    rest = _resumed(each, first, tmp_path)
    assert _ask(rest, "three") == answers[2]
    assert _content(rest.prepare()) == _content(whole.prepare())
    assert _said(rest) == _said(whole)
    assert rest.system == whole.system


def test_turns_from_before_a_resumption_can_be_taken_back(model: Model, tmp_path: Path) -> None:
    first, _ = _talk(model, "one", "two", "three")
    rest = _resumed(model, first, tmp_path)
    assert [turn.user for turn in rest.undo(2)] == ["two", "three"]
    other, _ = _talk(model, "one")
    assert _content(rest.prepare()) == _content(other.prepare())


def test_message_of_any_bytes_survives_a_resumption(model: Model, tmp_path: Path) -> None:
    first, _ = _talk(model, "caf\udce9 \U0001f600")  # a byte that is no UTF-8, as argv gives it
    rest = _resumed(model, first, tmp_path)
    assert rest.turns[0].user == "caf\udce9 \U0001f600"
    assert bytes(rest.prepare().tokens).startswith(b"User: caf\xe9 \xf0\x9f\x98\x80\n\nAssistant:")


def test_nothing_changes_when_a_message_cannot_be_read(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    before, turns = _content(conversation.prepare()), list(conversation.turns)

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.ask("two", progress=fail)
    assert (_content(conversation.prepare()), conversation.turns) == (before, turns)


def test_abandoned_answer_is_kept_as_far_as_it_was_shown(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    pieces = iter(conversation.ask("two"))
    shown = next(pieces)
    pieces.close()
    turn = conversation.turns[-1]
    assert (turn.user, turn.finish) == ("two", "interrupt")
    assert turn.answer.lstrip() == shown.decode(errors="replace")
    assert conversation.prepare().tokens == [*conversation.tree.tokens()]


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
    assert bytes(conversation.prepare().tokens).startswith(b"User: hi\n\nAssistant: <think")


def test_saved_transcript_is_of_a_copy(model: Model) -> None:
    conversation, _ = _talk(model, "one")
    state = conversation.prepare()
    saved = with_transcript(conversation, state)
    assert state.attachments.transcript == ""
    turns = json.loads(saved.attachments.transcript)["turns"]
    assert [turn["user"] for turn in turns] == ["one"]
    assert saved.tokens == state.tokens
