"""A conversation: turns over one state, each of which can be taken back. Knows no files and no
screen.

The token list is the truth: what was read is never encoded again. A turn's text starts with the
separator that closes the answer before it, so taking back a turn means returning to where the
state was before that text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.generation import Generation, Randomness
from rwkv_cli.sampling import Sampling
from rwkv_cli.text.templates import ChatTemplate

Progress = Callable[[int], None]

_KEPT = 16  # states of earlier turns held in memory; older ones are read again from their tokens


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange.

    Attributes:
        user: The message as it was typed.
        answer: The answer as it was shown.
        start: Tokens read before the turn.
        finish: Why the answer ended (see `generation`).
    """

    user: str
    answer: str
    start: int
    finish: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made.

    Attributes:
        sampling: How tokens are drawn.
        randomness: Where random numbers come from.
        max_tokens: Longest answer, in tokens.
        think: Mode of thinking; None is the template's default.
    """

    sampling: Sampling
    randomness: Randomness
    max_tokens: int = 4096
    think: str | None = None


class Conversation:
    """Turns with a model.

    Attributes:
        model: Who answers.
        template: How turns are written.
        system: Instruction at the start; empty for none.
        turns: What was said so far.
        state: The state after all of it.
        manner: How the next answer is made.
    """

    def __init__(
        self, model: Model, template: ChatTemplate, manner: Manner, *, system: str = ""
    ) -> None:
        self.model, self.template, self.manner = model, template, manner
        self.system = system
        self.turns: list[Turn] = []
        self.state = model.zero_state()
        self._before: dict[int, State] = {}  # tokens read before a turn, to the state then

    def ask(self, message: str, progress: Progress | None = None) -> Reply:
        """Read a message; iterate over the result to get the answer.

        The conversation changes only when the answer ends, so a failure or an interrupt while the
        message is read loses nothing.

        Raises:
            UsageError: The message is empty.
        """
        if not self.template.clean(message):
            raise UsageError("the message is empty")
        state = self.state.clone()
        prompt = self._prompt(message)
        tokens = self.model.tokenizer.encode(prompt.encode("utf-8", "surrogateescape"))
        self.model.advance_stream([tokens], state, progress)
        return Reply(self, message, state)

    def _prompt(self, message: str) -> str:
        """Write the text of a turn, from the end of the last answer to the
        beginning of this one.
        """
        turn = self.template.turn(message, self.manner.think)
        if not self.turns:
            return self.template.opening() + self.template.system(self.system) + turn
        return self._separator() + turn

    def _separator(self) -> str:
        """Give what the last answer lacks of the separator: it may have ended with a line of its
        own.
        """
        whole = self.template.separator()
        for length in range(len(whole), 0, -1):
            if self.turns[-1].answer.endswith(whole[:length]):
                return whole[length:]
        return whole

    def opening(self) -> str:
        """Give what the template put at the beginning of the answer, such as an opened thought."""
        modes = {mode.name: mode.opening for mode in self.template.thinking}
        return modes.get(self.manner.think or "", "")

    def finish_turn(self, turn: Turn, state: State) -> None:
        """Take a turn and the state after it into the conversation."""
        self._before[turn.start] = self.state
        for start in sorted(self._before)[:-_KEPT]:
            del self._before[start]
        self.turns.append(turn)
        self.state = state

    def undo(self, count: int, progress: Progress | None = None) -> list[Turn]:
        """Take back the last turns.

        Args:
            count: How many.
            progress: Called with the number of tokens read, should the state have to be built
                again.

        Returns:
            The turns that were taken back, oldest first.

        Raises:
            UsageError: There are not so many.
        """
        if not 1 <= count <= len(self.turns):
            raise UsageError(f"{count} turns cannot be taken back: there are {len(self.turns)}")
        taken = self.turns[-count:]
        start = taken[0].start
        state = self._before.pop(start, None)
        if state is None:
            state = self.model.zero_state()
            if start:
                self.model.advance_stream([self.state.tokens[:start]], state, progress)
        self.state = state
        self.turns = self.turns[:-count]
        self._before = {s: kept for s, kept in self._before.items() if s < start}
        return taken

    def vary(self) -> None:
        """Let the next answer differ from one already given at the same place."""
        place = self.manner.randomness
        self.manner = replace(self.manner, randomness=replace(place, stream=place.stream + 1))

    def restart(self, system: str | None = None) -> None:
        """Forget all turns; the system text stays unless a new one is given."""
        self.system = self.system if system is None else system
        self.turns, self._before = [], {}
        self.state = self.model.zero_state()

    def snapshot(self) -> State:
        """Give the state with the conversation attached, ready to be saved."""
        state = self.state.clone()
        transcript = {
            "model": {"name": self.model.name, "path": str(self.model.path)},
            "template": self.template.name,
            "system": self.system,
            "turns": [asdict(turn) for turn in self.turns],
        }
        text = json.dumps(transcript, ensure_ascii=True)
        state.attachments = replace(state.attachments, transcript=text)
        return state

    def resume(self, state: State) -> None:
        """Take over a saved conversation.

        Raises:
            RefusedError: The state holds no conversation, or one that contradicts its tokens.
        """
        system, turns = read_transcript(state.attachments.transcript)
        starts = [turn.start for turn in turns]
        if starts != sorted(starts) or any(not 0 <= s <= state.position for s in starts):
            raise RefusedError("the saved conversation contradicts its own tokens")
        self.system, self.turns, self.state, self._before = system, turns, state, {}


class Reply:
    """An answer in the making: iterate over it for the bytes to show."""

    def __init__(self, conversation: Conversation, message: str, state: State) -> None:
        self._conversation, self._message = conversation, message
        manner = conversation.manner
        self.read = state.position - conversation.state.position
        self.generation = Generation(
            conversation.model,
            state,
            manner.sampling,
            manner.randomness,
            max_tokens=manner.max_tokens,
            stops=conversation.template.stops,
        )

    def __iter__(self) -> Iterator[bytes]:
        """Give the answer as it is generated, without its leading white space; then close the
        turn.
        """
        conversation, text = self._conversation, bytearray()
        shown = False
        opening = conversation.opening().encode()
        for data in self._pieces(opening):
            text += data
            visible = data if shown else data.lstrip()
            shown = shown or bool(visible)
            if visible:
                yield visible
        answer = bytes(text).decode("utf-8", "replace")
        finish = self.generation.finish or ""
        turn = Turn(self._message, answer, conversation.state.position, finish)
        conversation.finish_turn(turn, self.generation.state)

    def _pieces(self, opening: bytes) -> Iterator[bytes]:
        if opening:
            yield opening
        for event in self.generation:
            yield event.data


def read_transcript(text: str) -> tuple[str, list[Turn]]:
    """Read a saved conversation: its system text and its turns.

    Raises:
        RefusedError: It is none.
    """
    try:
        saved = json.loads(text)
        turns = [Turn(**turn) for turn in saved["turns"]]
        system = saved["system"]
        for text in (system, *(t for turn in turns for t in (turn.user, turn.answer, turn.finish))):
            text.encode("utf-8", "surrogateescape")  # what cannot be encoded cannot be asked again
        if not all(isinstance(t.start, int) for t in turns):
            raise TypeError
        return system, turns
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError("this state holds no conversation") from error


def describe_turns(turns: Sequence[Turn]) -> str:
    """Say how many turns there are."""
    return "1 turn" if len(turns) == 1 else f"{len(turns)} turns"
