"""The last answer once more: another one, more of it, other words, several to choose from. Each
is a turn beside the old one, which stays.
"""

from __future__ import annotations

from dataclasses import replace

from rwkv_cli.engine.model import Progress
from rwkv_cli.engine.state import Attachments
from rwkv_cli.errors import UsageError
from rwkv_cli.generation import INTERRUPT, LENGTH, saved_sampler
from rwkv_cli.session.candidates import Candidates
from rwkv_cli.session.conversation import Conversation, now
from rwkv_cli.session.log import ASK, END
from rwkv_cli.session.reply import Reply
from rwkv_cli.session.rewind import cut_reply
from rwkv_cli.tree import EDITED, OPEN, Turn, new_id


def retry(conversation: Conversation, progress: Progress | None = None) -> Reply:
    """Answer the last message again, differently; the old answer stays beside the new one."""
    old = conversation.answered()
    state = conversation.states.make(old.id, ASK, progress)
    count = _alternatives(conversation, old)
    draft = conversation.beside(old, b"", state)
    return conversation.begin(state, draft, conversation.stream(count))


def proceed(conversation: Conversation, progress: Progress | None = None) -> Reply:
    """Go on with an answer that was stopped or cut, as if it had never been.

    Raises:
        UsageError: It came to its own end.
    """
    old = conversation.answered()
    if old.finish not in (LENGTH, INTERRUPT, EDITED):
        raise UsageError("the answer is complete", hint="/retry gives another, /rewind goes back")
    state = conversation.states.make(old.id, END, progress)
    drawn = saved_sampler(Attachments(sampler=old.sampler))
    randomness = drawn[1] if drawn else conversation.manner.randomness
    draft = conversation.beside(old, conversation.text_of(old.reply), state)
    return conversation.begin(state, draft, randomness)


def rewind(conversation: Conversation, amount: str, progress: Progress | None = None) -> Reply:
    """Go back into the middle of the last answer, and write on from there, differently.

    Args:
        conversation: Where the answer is.
        amount: How far back: "12w" words, "40t" tokens, or '"some words"' to before these.
        progress: Called with the number of tokens read.

    Raises:
        UsageError: The answer is not so long, or the amount makes no sense.
    """
    old = conversation.answered()
    pieces = [conversation.model.tokenizer.token_bytes(token) for token in old.reply]
    whole, rest = cut_reply(pieces, amount)
    ids = [*old.reply[:whole], *(conversation.model.tokenizer.encode(rest) if rest else ())]
    state = conversation.states.make(old.id, ASK, progress)
    if ids:
        conversation.model.advance_stream([ids], state, progress)
    edited = replace(old, reply=ids)
    state.attachments = conversation.states.attachments(
        [*conversation.turns[:-1], edited], with_last=True
    )
    count = _alternatives(conversation, old)
    draft = conversation.beside(old, conversation.text_of(ids), state)
    return conversation.begin(state, draft, conversation.stream(count))


def rewrite(
    conversation: Conversation, turn_id: str, text: str, progress: Progress | None = None
) -> Turn:
    """Put other words into the model's mouth: a turn beside the old one.

    Raises:
        UsageError: The turn has no answer, or the text is empty.
    """
    old = conversation.tree.turns[turn_id]
    if old.finish == OPEN:
        raise UsageError(f"turn {conversation.tree.label(turn_id)} has no answer to edit")
    if not text.strip():
        raise UsageError("the answer is empty")
    lead = "" if text[0].isspace() else " "
    ids = conversation.model.tokenizer.encode((lead + text).encode("utf-8", "surrogateescape"))
    state = conversation.states.make(turn_id, ASK, progress)
    conversation.model.advance_stream([ids], state, progress)
    turn = replace(
        old,
        id=new_id(),
        answer=lead + text,
        reply=ids,
        finish=EDITED,
        sampler="",
        created=now(),
    )
    way = [*conversation.tree.path(old.parent), turn]
    state.attachments = conversation.states.attachments(way, with_last=True)
    conversation.tree.head = old.parent
    conversation.keep(turn, state, None)
    return turn


def candidates(
    conversation: Conversation, count: int, message: str = "", progress: Progress | None = None
) -> Candidates:
    """Begin several answers to one message, to be decoded together; none is kept until
    `choose`.

    Args:
        conversation: Where the answers belong.
        count: How many.
        message: What the user says; empty for the last message again.
        progress: Called with the number of tokens read.
    """
    if message:
        state, draft, _ = conversation.read_message(message, "", progress)
        first = 0
    else:
        old = conversation.answered()
        state = conversation.states.make(old.id, ASK, progress)
        first = _alternatives(conversation, old)
        draft = conversation.beside(old, b"", state)
    drafts = [replace(draft, turn=replace(draft.turn, id=new_id())) for _ in range(count)]
    generations = [
        conversation.generation(state.clone(), conversation.stream(first + i)) for i in range(count)
    ]
    return Candidates(conversation.model, state, drafts, generations)


def choose(conversation: Conversation, candidates: Candidates, index: int) -> Turn:
    """Keep all answers, and go on from one of them."""
    last = candidates.turns[index]
    conversation.tree.head = last.parent
    for turn, state in zip(candidates.turns, candidates.states, strict=True):
        if turn.id != last.id:
            conversation.keep(turn, state, candidates.asked)
    conversation.keep(last, candidates.states[index], candidates.asked)
    return last


def _alternatives(conversation: Conversation, turn: Turn) -> int:
    """Count the answers there are to the message of a turn: the number of the next one's stream."""
    return sum(turn.user == other.user for other in conversation.tree.siblings(turn.id))
