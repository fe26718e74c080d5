"""The last answer once more: another one, more of it, other words, several to choose from. Each
is a turn beside the old one, which stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rwkv_cli.engine.model import Progress
from rwkv_cli.engine.state import Attachments
from rwkv_cli.errors import StorageError, UsageError
from rwkv_cli.generation import INTERRUPT, LENGTH
from rwkv_cli.session.candidates import Candidates
from rwkv_cli.session.conversation import Conversation, now
from rwkv_cli.session.log import ASK, END
from rwkv_cli.session.reply import Reply
from rwkv_cli.session.rewind import cut_reply
from rwkv_cli.text.stops import StopMatcher
from rwkv_cli.traces import Randomness, sampler_text, saved_sampler
from rwkv_cli.tree import EDITED, OPEN, Tree, Turn, new_id


def retry(conversation: Conversation, progress: Progress | None = None) -> Reply:
    """Answer the last message again, differently; the old answer stays beside the new one."""
    old = conversation.answered()
    state = conversation.states.make(old.id, ASK, progress)
    draft = conversation.beside(old, (), state)
    return conversation.begin(state, draft, conversation.stream(_alternatives(conversation, old)))


def proceed(conversation: Conversation, progress: Progress | None = None) -> Reply:
    """Go on with an answer that was stopped or cut, as if it had never been.

    Raises:
        UsageError: It came to its own end.
    """
    old = conversation.answered()
    if old.finish not in (LENGTH, INTERRUPT, EDITED):
        raise UsageError("the answer is complete", hint="/retry gives another, /rewind goes back")
    drawn = saved_sampler(Attachments(sampler=old.sampler))
    randomness = drawn[1] if drawn else conversation.manner.randomness
    return _go_on(conversation, old, old.reply, randomness, progress)


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
    randomness = conversation.stream(_alternatives(conversation, old))
    return _go_on(conversation, old, ids, randomness, progress)


def _go_on(
    conversation: Conversation,
    old: Turn,
    ids: Sequence[int],
    randomness: Randomness,
    progress: Progress | None,
) -> Reply:
    """Write on after the first tokens of an answer. Its penalties are counted as the new answer
    counts them, from its beginning on, so that they can be made again from its tokens.
    """
    ids = _before_a_stop(conversation, ids)
    if list(ids) == list(old.reply):
        state = conversation.states.make(old.id, END, progress)
    else:
        state = conversation.states.make(old.id, ASK, progress)
        if ids:
            conversation.model.advance_stream([ids], state, progress)
    sampler = sampler_text(conversation.manner.sampling, randomness)
    begun = replace(old, reply=ids, sampler=sampler)
    state.attachments = conversation.states.attachments(
        [*conversation.turns[:-1], begun], with_last=True
    )
    draft = conversation.beside(old, ids, state)
    return conversation.begin(state, draft, randomness)


def _before_a_stop(conversation: Conversation, ids: Sequence[int]) -> Sequence[int]:
    """Leave out the last tokens if they may begin a stop string: it is looked for again, and the
    same numbers draw the same tokens.
    """
    matcher = StopMatcher(conversation.template.stops)
    matcher.feed(conversation.text_of(ids))
    left, count = len(matcher.held), len(ids)
    while left > 0 and matcher.matched is None:
        count -= 1
        left -= len(conversation.model.tokenizer.token_bytes(ids[count]))
    return ids[:count]


def ask_instead(
    conversation: Conversation, turn: Turn, message: str, progress: Progress | None = None
) -> Reply:
    """Ask something else in the place of a turn, which stays beside the new one.

    Raises:
        UsageError: The message is empty; we are where we were.
    """
    tree = conversation.tree
    here, tree.head = tree.head, turn.parent
    try:
        return conversation.ask(message, progress=progress)
    finally:
        tree.head = here  # the turn knows where it belongs


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
    encode = conversation.model.tokenizer.encode
    data = (("" if text[0].isspace() else " ") + text).encode("utf-8", "surrogateescape")
    given, prompt = conversation.opening_of(old), old.prompt
    if data.startswith(given):  # what the prompt ends with already
        state = conversation.states.make(turn_id, ASK, progress)
        ids = encode(data[len(given) :])
    else:
        prompt = encode(conversation.text_of(old.prompt).removesuffix(given))
        state = conversation.states.make(old.parent, END, progress)
        conversation.model.advance_stream([prompt], state, progress)
        ids = encode(data)
    conversation.model.advance_stream([ids], state, progress)
    turn = replace(
        old,
        id=new_id(),
        answer=data.decode("utf-8", "surrogateescape"),
        prompt=prompt,
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
        after = conversation.tree.children(conversation.tree.head)
        first = sum(turn.user == message for turn in after)
    else:
        old = conversation.answered()
        state = conversation.states.make(old.id, ASK, progress)
        first = _alternatives(conversation, old)
        draft = conversation.beside(old, (), state)
    drafts = [replace(draft, turn=replace(draft.turn, id=new_id())) for _ in range(count)]
    begins = [
        partial(conversation.generation, randomness=conversation.stream(first + i))
        for i in range(count)
    ]
    return Candidates(conversation.model, state, drafts, begins)


def choose(conversation: Conversation, candidates: Candidates, index: int) -> Turn:
    """Keep all answers, and go on from one of them.

    Raises:
        StorageError: The disk refused; all of them are in memory.
    """
    turns = candidates.turns
    failure: StorageError | None = None
    for turn, state in zip(turns, candidates.states, strict=True):
        try:
            conversation.keep(turn, state, candidates.asked)
        except StorageError as error:
            failure = error
    if turns[index].id != conversation.tree.head:
        conversation.goto(turns[index].id)
    if failure:
        raise failure
    return turns[index]


def alternatives(tree: Tree, turn: Turn) -> list[Turn]:
    """List the answers there are to the message of a turn, oldest first."""
    return [t for t in tree.siblings(turn.id) if t.user == turn.user and t.finish != OPEN]


def _alternatives(conversation: Conversation, turn: Turn) -> int:
    """Count them: the number of the next one's stream."""
    return len(alternatives(conversation.tree, turn))
