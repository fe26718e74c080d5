"""A conversation with a model: asking, and going back to anything that was said.

The token list is the truth: what was read is never encoded again. A turn's text starts with the
separator that closes the answer before it, so going back to a turn means returning to the state
before that text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.generation import CLEAN, Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.session.log import ASK, END, Load, Log, MemoryLog
from rwkv_cli.session.reply import Draft, Reply
from rwkv_cli.session.retell import missing
from rwkv_cli.session.states import States
from rwkv_cli.text.templates import ChatTemplate
from rwkv_cli.traces import Randomness
from rwkv_cli.tree import OPEN, Tree, Turn, new_id

# Reads tokens into the state before any token, and tells how many of them it did not have to read.
Read = Callable[[Model, Iterable[Sequence[int]], State, Progress | None], int]

_MARK = "\ue000rwkv\ue000"  # stands for the message while the template is cut around it
_LONG_PROMPT = 256  # tokens of a message after which the state at the answer point is kept on disk


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made.

    Attributes:
        sampling: How tokens are drawn.
        randomness: Where random numbers come from; other answers from the same place take the
            streams after this one.
        max_tokens: Longest answer, in tokens.
        think: Mode of thinking; None is the template's default.
        seeded: Whether the user asked for these random numbers.
    """

    sampling: Sampling
    randomness: Randomness
    max_tokens: int = 4096
    think: str | None = None
    seeded: bool = False


class Conversation:
    """Turns with a model, as a tree.

    Args:
        model: Who answers.
        template: How turns are written.
        manner: How answers are made.
        log: Where turns are kept; by default nowhere.
        system: Instruction at the start; empty for none.
        base: The state it begins from; None is the state before any token.
        read: Reads the first prompt, for example with the help of a cache.
        load: Reads a state file; the model's own way by default.

    Attributes:
        manner: How the next answer is made; may be changed at any time.
        base: The state it began from.
    """

    def __init__(
        self,
        model: Model,
        template: ChatTemplate,
        manner: Manner,
        log: Log | None = None,
        *,
        system: str = "",
        base: State | None = None,
        read: Read | None = None,
        load: Load | None = None,
    ) -> None:
        self.model, self.template, self.manner = model, template, manner
        self.system = system
        self.log: Log = MemoryLog() if log is None else log
        self.states = States(model, self.log, base, load)
        self.base, self._read = base, read
        self._undone: list[str] = []  # where /redo leads, the nearest last

    @property
    def tree(self) -> Tree:
        """All turns."""
        return self.log.tree

    @property
    def turns(self) -> list[Turn]:
        """The turns from the beginning to where we are."""
        return self.tree.path()

    @property
    def position(self) -> int:
        """Tokens of the context where we are."""
        return (self.base.position if self.base else 0) + self.tree.position()

    def prepare(self, progress: Progress | None = None) -> State:
        """Give a copy of the state where we are, made again if it is not held."""
        return self.states.make(self.tree.head, END, progress)

    def move_to(self, log: Log) -> None:
        """Keep turns somewhere else from now on; all turns to where we are must be there."""
        self.log = log
        self.states.move_to(log)

    # Asking

    def ask(self, message: str, *, progress: Progress | None = None, prefill: str = "") -> Reply:
        """Read a message; iterate over the result to get the answer.

        The conversation changes only when the answer ends, so a failure or an interrupt while the
        message is read loses nothing.

        Args:
            message: What the user says.
            progress: Called with the number of tokens read.
            prefill: What the answer begins with.

        Raises:
            UsageError: The message is empty.
        """
        state, draft, cached = self.read_message(message, prefill, progress)
        reply = self.begin(state, draft, self.manner.randomness)
        reply.read, reply.cached = len(draft.turn.prompt) - cached, cached
        return reply

    def peek(self, question: str, progress: Progress | None = None) -> Reply:
        """Ask beside the conversation: neither question nor answer is kept anywhere."""
        read, self._read = self._read, None
        try:
            reply = self.ask(question, progress=progress)
        finally:
            self._read = read
        reply.kept = False
        return reply

    def attach(
        self, name: str, pieces: Iterable[bytes], progress: Progress | None = None
    ) -> tuple[Turn, int]:
        """Read material that belongs to the next message, before that message is known.

        Args:
            name: What the user calls it.
            pieces: Its text.
            progress: Called with the number of tokens read.

        Returns:
            The turn it became, and how many of its tokens did not have to be read.

        Raises:
            UsageError: It is empty.
        """
        state = self.prepare(progress)
        head, _ = self._around()
        before = state.position
        text = self._joined(head, pieces)
        cached = self._advance(self.model.tokenizer.encode_stream(text), state, progress)
        prompt = state.tokens[before:]
        if not self._material:
            raise UsageError(f"{name} is empty")
        turn = self._turn(user=name, prompt=prompt, finish=OPEN)
        state.attachments = replace(state.attachments, tail=b"")
        self.keep(turn, state, None)
        return turn, cached

    # Going back and forth

    def undo(self, count: int = 1) -> list[Turn]:
        """Take back the last turns; they stay in the tree.

        Returns:
            The turns that were taken back, oldest first.

        Raises:
            UsageError: There are not so many.
        """
        turns = self.turns
        if not 1 <= count <= len(turns):
            raise UsageError(f"cannot take back {count}; turns there are: {len(turns)}")
        taken = turns[-count:]
        self._move(taken[0].parent)
        self._undone += [turn.id for turn in reversed(taken)]
        return taken

    def redo(self, count: int = 1) -> list[Turn]:
        """Go to the turns that were taken back last, or else to the newest that follow.

        Raises:
            UsageError: Nothing follows.
        """
        found: list[Turn] = []
        at = self.tree.head
        for _ in range(count):
            after = self.tree.children(at)
            if not after:
                break
            undone = self._undone.pop() if self._undone else ""
            found.append(next((turn for turn in after if turn.id == undone), after[-1]))
            at = found[-1].id
        if not found:
            raise UsageError("nothing was taken back")
        self._move(at)
        return found

    def goto(self, turn_id: str) -> None:
        """Go to a turn of the tree, or to the beginning."""
        self._move(turn_id)
        self._undone.clear()

    def _move(self, turn_id: str) -> None:
        self.log.move(turn_id)

    def costs(self) -> dict[str, int]:
        """Count for every turn the tokens that going there reads; none where its state is held."""
        return self.states.costs()

    def keep(self, turn: Turn, state: State | None, asked: State | None) -> None:
        """Take a finished turn and its states into the conversation, and keep them.

        Args:
            turn: The turn.
            state: The one after it; None when there is none, and it is to be made of the tokens.
            asked: The one after its message, if it is worth keeping.

        Raises:
            StorageError: The disk refused; the turn is in memory all the same.
        """
        if state is not None:
            self.states.put(turn.id, END, state)
        if asked is not None:
            self.states.put(turn.id, ASK, asked)
        self._undone.clear()
        self.log.add(turn)
        if state is not None:
            self.log.save_state(turn.id, END, state)
        if asked is not None and len(turn.prompt) >= _LONG_PROMPT:
            self.log.save_state(turn.id, ASK, asked)

    # How turns are written

    def read_message(
        self, message: str, prefill: str, progress: Progress | None
    ) -> tuple[State, Draft, int]:
        """Read a message after the turn where we are."""
        if not self.template.clean(message):
            raise UsageError("the message is empty")
        state = self.prepare(progress)
        head, tail = self._around()
        start = f" {prefill}" if prefill and not tail[-1:].isspace() else prefill
        text = head + self.template.clean(message) + tail + start
        tokens = self.model.tokenizer.encode(text.encode("utf-8", "surrogateescape"))
        state.attachments = replace(state.attachments, tail=b"")
        cached = self._advance([tokens], state, progress)
        turn = self._turn(user=message, prompt=tokens)
        said = (self._opening() + start).encode("utf-8", "surrogateescape")
        return state, Draft(turn, said, said, state.clone(), state.position), cached

    def _advance(
        self, tokens: Iterable[Sequence[int]], state: State, progress: Progress | None
    ) -> int:
        """Read tokens; tell how many of them did not have to be read."""
        if state.position == 0 and self.base is None and self._read is not None:
            return self._read(self.model, tokens, state, progress)
        self.model.advance_stream(tokens, state, progress)
        return 0

    def _around(self) -> tuple[str, str]:
        """Give what stands before and after the next message."""
        head, tail = self.template.turn(_MARK, self.manner.think).split(_MARK)
        turns = self.turns
        if turns and turns[-1].finish == OPEN:
            return "", tail
        if turns:
            return missing(self.template.separator(), turns[-1].answer) + head, tail
        if self.base is not None and self.base.position:
            last = self.text_of(self.base.tokens[-8:]).decode("utf-8", "replace")
            return missing(self.template.separator(), last) + self.template.system(
                self.system
            ) + head, tail
        return self.template.opening() + self.template.system(self.system) + head, tail

    def _joined(self, head: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Give the text of material, with what stands before it and the line end after it."""
        self._material = False
        yield head.encode("utf-8", "surrogateescape")
        for piece in self.template.clean_stream(pieces):
            self._material = self._material or bool(piece.strip())
            yield piece
        yield b"\n"

    _material = False  # whether the material that was read last had any text

    def _opening(self) -> str:
        """Give what the template put at the beginning of the answer, such as an opened thought."""
        modes = {mode.name: mode.opening for mode in self.template.thinking}
        return modes.get(self.manner.think or "", "")

    def _turn(self, *, user: str, prompt: Sequence[int], finish: str = "") -> Turn:
        return Turn(new_id(), self.tree.head, user, "", prompt, (), finish, created=now())

    # How answers are begun

    def answered(self) -> Turn:
        """Give the turn where we are, if it has an answer.

        Raises:
            UsageError: It has none.
        """
        turns = self.turns
        if not turns or turns[-1].finish == OPEN:
            raise UsageError("there is no answer yet")
        return turns[-1]

    def beside(self, old: Turn, ids: Sequence[int], state: State) -> Draft:
        """Begin another answer to the message of a turn, which begins with some tokens."""
        turn = replace(old, id=new_id(), answer="", reply=(), finish="", sampler="", created=now())
        asked = self.states.make(old.id, ASK) if ids else state.clone()
        opening = self.opening_of(old)
        return Draft(turn, opening, opening + self.text_of(ids), asked, asked.position)

    def opening_of(self, turn: Turn) -> bytes:
        """Give what the template or the user put at the beginning of an answer."""
        spoken = self.text_of(turn.reply).decode("utf-8", "replace")
        given = turn.answer.removesuffix(spoken) if turn.answer.endswith(spoken) else ""
        return given.encode("utf-8", "surrogateescape")

    def stream(self, alternative: int) -> Randomness:
        """Give the random numbers of the n-th answer from one place."""
        place = self.manner.randomness
        return replace(place, stream=place.stream + alternative)

    def generation(self, state: State, randomness: Randomness) -> Generation:
        """Generate an answer from a state, which is taken over."""
        return Generation(
            self.model,
            state,
            self.manner.sampling,
            randomness,
            max_tokens=self.manner.max_tokens,
            stops=self.template.stops,
            leave=CLEAN,
        )

    def begin(self, state: State, draft: Draft, randomness: Randomness) -> Reply:
        """Begin an answer."""
        return Reply(self, draft, self.generation(state, randomness))

    def text_of(self, tokens: Iterable[int]) -> bytes:
        """Give the bytes of tokens."""
        return b"".join(map(self.model.tokenizer.token_bytes, tokens))


def now() -> str:
    """Tell the time, for people."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
