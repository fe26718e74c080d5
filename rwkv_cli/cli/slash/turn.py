"""Commands about the last turn: another answer, more of it, other words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rwkv_cli.cli.app import Terminated
from rwkv_cli.cli.loading import interruptible
from rwkv_cli.cli.slash.command import Command, number_in, places
from rwkv_cli.errors import UsageError
from rwkv_cli.render.progress import counted
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.session import again
from rwkv_cli.tree import OPEN, Turn

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl

_MOST = 16  # answers of /best


def _retry(repl: Repl, argument: str) -> None:
    """Answer the last message again, differently; the old answer stays in the tree."""
    with repl.screen.reading() as progress:
        reply = again.retry(repl.conversation, progress)
    repl.show(reply)


def _continue(repl: Repl, argument: str) -> None:
    """Go on with an answer that was stopped or cut."""
    with repl.screen.reading() as progress:
        reply = again.proceed(repl.conversation, progress)
    repl.show(reply)


def _edit(repl: Repl, argument: str) -> None:
    """Change a message of the user, which is then answered, or the words of the model."""
    conversation = repl.conversation
    words = argument.split()
    names = [word for word in words if word != "answer"]
    if len(names) > 1:
        raise UsageError("/edit takes a turn, and perhaps the word answer, such as /edit 2 answer")
    turn = _turn(repl, "".join(names))
    if "answer" in words:
        text = repl.type_in(turn.answer.strip(), "edit> ")
        if text is not None:
            with repl.saving(), repl.screen.reading() as progress:
                again.rewrite(conversation, turn.id, text, progress)
            note(dim("the answer has your words now; the old one stays in the tree"))
        return
    text = repl.type_in(turn.user, "edit> ")
    if text is not None:
        with repl.screen.reading() as progress:
            reply = again.ask_instead(conversation, turn, text, progress)
        repl.show(reply)


def _turn(repl: Repl, name: str) -> Turn:
    """Find the turn to edit, the last one when none is named.

    Raises:
        UsageError: There is none, or it is material.
    """
    tree = repl.conversation.tree
    found = tree.find(name) if name else tree.head
    if not found:
        raise UsageError("there is no turn to edit")
    turn = tree.turns[found]
    if turn.finish == OPEN:
        which = f"turn {tree.label(found)} is material"
        raise UsageError(f"{which}, no message", hint="/edit TURN changes another, /undo leaves it")
    return turn


def _best(repl: Repl, argument: str) -> None:
    """Draw several answers in one batch, and choose one; all of them stay in the tree."""
    number, _, message = argument.partition(" ")
    count = number_in(number, 2, _MOST)
    if count is None:
        raise UsageError(f"/best takes how many answers, 2 to {_MOST}, such as /best 3")
    with repl.screen.reading() as progress:
        found = again.candidates(repl.conversation, count, message.strip(), progress)
    done = 0
    with interruptible(found) as interrupts, repl.screen.counting("answering") as shown:
        for running in found:
            done += running
            shown(done)
    for index, text in enumerate(found.texts, 1):
        note(dim(f"answer {index}, {counted(found.generations[index - 1].count, 'token')}"))
        repl.screen.text(text.strip())
    chosen = 0 if interrupts.terminated else repl.choose(count)
    if chosen is None:
        note(dim("none of them is kept"))
        return
    with repl.saving():
        turn = again.choose(repl.conversation, found, chosen)
    if interrupts.terminated:
        raise Terminated
    note(dim(f"going on from answer {chosen + 1}, turn {repl.conversation.tree.label(turn.id)}"))


def _alt(repl: Repl, argument: str) -> None:
    """Go to another answer of the same message."""
    conversation = repl.conversation
    turn = conversation.answered()
    beside = [other.id for other in again.alternatives(conversation.tree, turn)]
    at = beside.index(turn.id)
    steps = {"": 1, "next": 1, "prev": -1}
    if argument in steps:
        at = (at + steps[argument]) % len(beside)
    elif number := number_in(argument, 1, len(beside)):
        at = number - 1
    else:
        raise UsageError(f"/alt takes next, prev or 1 to {len(beside)}")
    conversation.goto(beside[at])
    note(dim(f"answer {at + 1} of {len(beside)}"))
    repl.show_last()


def _ways(repl: Repl) -> list[str]:
    return ["next", "prev"]


COMMANDS = {
    "retry": Command(_retry, "", "another answer to your last message"),
    "continue": Command(_continue, "", "go on with an answer that was cut"),
    "edit": Command(_edit, "[TURN] [answer]", "change your message, or the model's answer", places),
    "best": Command(_best, "N [MESSAGE]", "N answers in one batch, to choose from"),
    "alt": Command(_alt, "[next|prev|N]", "another of the answers there are", _ways),
}
