"""Whatever is done to an answer, its turn tells all that the model has read, and the same comes of
it whether the states are in memory or made again from the tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from oracle.scripted import TABLE, scripted, text_of

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import StorageError, UsageError
from rwkv_cli.sampling import Sampling
from rwkv_cli.session import Conversation, Manner, MemoryLog, again
from rwkv_cli.session import reply as session_reply
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness
from rwkv_cli.tree import Turn

WORLD = load_template("world")
MANNER = Manner(Sampling(1.1, 0.9, presence=0.2, frequency=0.1), Randomness(3), max_tokens=9)
GREEDY = Manner(Sampling(0), Randomness(3))


def conversation_of(script: list[int], message: str = "hi", prefill: str = "") -> Conversation:
    """Hold a conversation with a model that says what stands in a script."""
    prompt = f"User: {message}\n\nAssistant:{' ' if prefill else ''}{prefill}"
    probe = scripted([], [])
    made = Conversation(scripted(script, probe.tokenizer.encode(prompt.encode())), WORLD, GREEDY)
    b"".join(made.ask(message, prefill=prefill))
    return made


def read_by(conversation: Conversation) -> str:
    """Give all that the model has read, and will have when it answers."""
    return text_of(conversation.prepare().tokens).decode("utf-8", "replace")


def again_from_tokens(conversation: Conversation) -> State:
    """Make the state where we are as a process does that has nothing but the turns."""
    log = MemoryLog()
    log.tree = conversation.tree
    return Conversation(conversation.model, WORLD, MANNER, log).prepare()


def check_same(a: State, b: State) -> None:
    """Compare all that a later answer depends on; an engine may differ in its last bits."""
    assert list(a.tokens) == list(b.tokens)
    for name in a.arrays:
        assert np.allclose(a.arrays[name], b.arrays[name], rtol=1e-3, atol=1e-4), name
    ours, theirs = a.attachments, b.attachments
    assert ours.penalty_ids.tolist() == theirs.penalty_ids.tolist()
    assert ours.penalty_counts.tolist() == theirs.penalty_counts.tolist()
    assert ours.tail == theirs.tail


def _steps(conversation: Conversation, dice: random.Random) -> Iterator[str]:
    """Do things at random; what makes no sense here is refused and changes nothing."""
    while True:
        what = dice.choice(["ask", "retry", "proceed", "rewind", "rewrite", "instead", "undo"])
        conversation.manner = replace(
            MANNER,
            sampling=MANNER.sampling.with_changes(penalty_decay=dice.choice([0.9, 0.996])),
            max_tokens=dice.randrange(1, 9),
        )
        before = conversation.tree.head
        try:
            if what == "ask":
                b"".join(conversation.ask(f"so {dice.randrange(9)}"))
            elif what == "retry":
                b"".join(again.retry(conversation))
            elif what == "proceed":
                b"".join(again.proceed(conversation))
            elif what == "rewind":
                b"".join(again.rewind(conversation, f"{dice.randrange(1, 6)}t"))
            elif what == "rewrite":
                again.rewrite(conversation, conversation.answered().id, "other words")
            elif what == "instead":
                b"".join(again.ask_instead(conversation, conversation.answered(), "else"))
            else:
                conversation.undo()
        except UsageError:
            assert conversation.tree.head == before
        yield what


@pytest.mark.parametrize("seed", range(6))
def test_made_again_from_the_tokens_it_is_the_same(model: Model, seed: int) -> None:
    conversation = Conversation(model, WORLD, MANNER)
    for _, _what in zip(range(25), _steps(conversation, random.Random(seed)), strict=False):
        check_same(again_from_tokens(conversation), conversation.prepare())


def test_another_wording_does_not_repeat_what_the_prompt_ends_with() -> None:
    made = conversation_of([TABLE.index(b"a")], prefill="abc")
    assert made.turns[-1].answer == " abca"
    again.rewrite(made, made.tree.head, "abc d")
    assert read_by(made) == "User: hi\n\nAssistant: abc d"
    again.rewrite(made, made.tree.head, "b")
    assert read_by(made) == "User: hi\n\nAssistant: b"
    assert made.turns[-1].answer == " b"


def test_a_cut_inside_the_last_token_goes_back_even_if_as_many_tokens_stay() -> None:
    made = conversation_of([TABLE.index(b"ab")])
    b"".join(again.rewind(made, '"b"'))  # "a" is one token too
    turn = made.turns[-1]
    assert turn.answer == text_of(turn.reply).decode()
    assert turn.answer.startswith("a")
    assert read_by(made) == f"User: hi\n\nAssistant:{turn.answer}"


def test_a_beginning_that_was_given_stays_however_the_answer_was_cut() -> None:
    made = conversation_of([TABLE.index(b"\xe2\x82")], prefill="abc")
    made.manner = replace(GREEDY, max_tokens=1)
    made.goto("")
    b"".join(made.ask("hi", prefill="abc"))
    assert made.turns[-1].answer == " abc\ufffd"
    assert made.opening_of(made.turns[-1]) == b" abc"
    b"".join(again.retry(made))
    assert made.turns[-1].answer == " abc\ufffd"


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_cut_inside_a_stop_text_is_not_gone_beyond(cut: int) -> None:
    script = [TABLE.index(b"a"), TABLE.index(b"b"), TABLE.index(b"\n\n"), TABLE.index(b"User:")]
    whole = conversation_of(script)
    assert whole.turns[-1].answer == "ab"
    part = conversation_of(script)
    part.goto("")
    part.manner = replace(GREEDY, max_tokens=cut)
    b"".join(part.ask("hi"))
    if part.turns[-1].finish == "length":
        part.manner = GREEDY
        b"".join(again.proceed(part))
    assert part.turns[-1].answer == "ab"
    assert read_by(part) == read_by(whole)


def test_what_is_saved_of_an_answer_that_goes_on_says_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_reply, "_SAVING", 0.0)
    drafts: list[Turn] = []
    monkeypatch.setattr(MemoryLog, "draft", lambda self, turn: drafts.append(turn))
    made = conversation_of([TABLE.index(c) for c in (b"a", b"b", b"c", b"d")])
    b"".join(again.rewind(made, "2t"))
    assert [turn.answer for turn in drafts[-2:]] == ["abc", "abcd"]
    for turn in drafts:
        assert text_of(turn.reply).decode() == turn.answer


def test_a_failure_inside_the_model_leaves_the_turn_and_no_state(model: Model) -> None:
    conversation = Conversation(model, WORLD, MANNER)
    reply = conversation.ask("hi")
    decode, count = model.engine.decode, 0

    def failing(tokens: list[int], states: list[State]) -> object:
        nonlocal count
        count += 1
        if count > 3:
            for array in states[0].arrays.values():
                array += 1  # as far as it came
            raise KeyboardInterrupt
        return decode(tokens, states)

    engine = type("Failing", (), {"__getattr__": lambda self, name: getattr(model.engine, name)})()
    engine.decode = failing
    reply.generation._model = replace(model, engine=engine)
    with pytest.raises(KeyboardInterrupt):
        b"".join(reply)
    assert len(conversation.turns[0].reply) == 3
    check_same(conversation.prepare(), again_from_tokens(conversation))


def test_all_of_several_answers_are_kept_on_a_disk_that_takes_none(model: Model) -> None:
    class Full(MemoryLog):
        def add(self, turn: Turn) -> None:
            super().add(turn)
            raise StorageError("no room")

    conversation = Conversation(model, WORLD, MANNER, Full())
    found = again.candidates(conversation, 3, "hi")
    for _ in found:
        pass
    with pytest.raises(StorageError):
        again.choose(conversation, found, 1)
    assert len(conversation.tree.turns) == 3
    assert conversation.tree.head == found.turns[1].id


def test_an_empty_message_in_the_place_of_another_changes_nothing(model: Model) -> None:
    conversation = Conversation(model, WORLD, MANNER)
    for message in ("one", "two"):
        b"".join(conversation.ask(message))
    head = conversation.tree.head
    with pytest.raises(UsageError, match="empty"):
        again.ask_instead(conversation, conversation.turns[0], " ")
    assert conversation.tree.head == head
    b"".join(again.ask_instead(conversation, conversation.turns[0], "three"))
    assert [turn.user for turn in conversation.turns] == ["three"]
    assert len(conversation.tree.turns) == 3


def test_several_answers_to_a_message_that_has_some_are_new_ones(model: Model) -> None:
    conversation = Conversation(model, WORLD, replace(MANNER, max_tokens=20))
    b"".join(conversation.ask("hi"))
    first = conversation.turns[0].answer
    conversation.undo()
    found = again.candidates(conversation, 2, "hi")
    for _ in found:
        pass
    streams = [generation.randomness.stream for generation in found.generations]
    assert streams == [1, 2]
    assert first not in [turn.answer for turn in found.turns]
